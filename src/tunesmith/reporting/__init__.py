"""What people read: comparisons and one self-contained HTML report, computed from run folders."""
