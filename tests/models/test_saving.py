"""What a disk refuses is an OSError with its number."""

import errno

import pytest
from safetensors import SafetensorError

from tunesmith.models.saving import disk_errors


@pytest.mark.parametrize(
    "words",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        'Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })',
    ],
)
def test_a_full_disk_is_told_by_its_number(words):
    with pytest.raises(OSError, match="No space left") as error, disk_errors():
        raise SafetensorError(words)
    assert error.value.errno == errno.ENOSPC


def test_a_defect_in_the_weights_stays_one():
    with pytest.raises(SafetensorError), disk_errors():
        raise SafetensorError("InvalidHeader")
