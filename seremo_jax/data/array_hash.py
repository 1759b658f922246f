"""The values of an Arrow array as bytes for a hash, whatever its chunks, offsets and buffers are."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def update_with(digest: Any, array: pa.Array | pa.ChunkedArray) -> None:
    """Feeds the values and the places of nulls to a hash, whatever lies in the buffers under nulls.

    Args:
      digest: Of `hashlib`.
      array: Numbers, booleans, texts, or lists of these.

    Raises:
      TypeError: It holds something else.
    """
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], type=array.type)
    # Parquet renames the items of a list, so the type of a list is that of the array inside it, hashed with its values.
    digest.update(b"list;" if pa.types.is_list(array.type) else f"{array.type};".encode())
    digest.update(np.packbits(np.asarray(array.is_null())).tobytes())
    if pa.types.is_list(array.type):
        digest.update(np.asarray(pc.list_value_length(array).fill_null(0), dtype="<i8").tobytes())
        update_with(digest, array.flatten())
    elif pa.types.is_string(array.type):
        # Offsets of 64 bits: the texts of a large corpus together may exceed 2 GiB.
        text = array.fill_null("").cast(pa.large_string())
        offsets = np.frombuffer(text.buffers()[1], dtype="<i8")[text.offset : text.offset + len(text) + 1]
        digest.update(np.diff(offsets).astype("<i8").tobytes())
        if len(text) and text.buffers()[2] is not None:
            digest.update(memoryview(text.buffers()[2])[offsets[0] : offsets[-1]])
    elif pa.types.is_primitive(array.type):
        values = array.fill_null(False if pa.types.is_boolean(array.type) else 0)
        numbers = values.to_numpy(zero_copy_only=False)
        digest.update(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())
    else:
        raise TypeError(f"no fingerprint for a column of type {array.type}")
