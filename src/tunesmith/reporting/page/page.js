// Draws the charts in the page once they come into view, and lets the reader choose light or dark.
// Without it the page shows the same charts as still drawings.
"use strict";
(() => {
  const phone = matchMedia("(max-width: 760px)");
  const tooltip = { disableDefaultStyle: true, offsetX: 14, offsetY: 14 };
  const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip };
  const drawn = new Map();

  async function draw(chart) {
    const specs = JSON.parse(chart.querySelector("script").textContent);
    const place = chart.querySelector(".live");
    drawn.get(chart)?.finalize();
    chart.classList.add("drawn");
    try {
      drawn.set(chart, await vegaEmbed(place, specs[phone.matches ? "narrow" : "wide"], options));
    } catch (wrong) {
      chart.classList.remove("drawn");
      console.error(wrong);
    }
  }

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "800px" });
  document.querySelectorAll(".chart").forEach((chart) => seen.observe(chart));
  phone.addEventListener("change", () => [...drawn.keys()].forEach(draw));

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const button = document.querySelector(".scheme");
  const isDark = () => (root.dataset.scheme ? root.dataset.scheme === "dark" : dark.matches);
  const say = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => { root.dataset.scheme = isDark() ? "light" : "dark"; say(); });
  dark.addEventListener("change", say);
  button.hidden = false;
  say();
})();
