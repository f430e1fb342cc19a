"""The reader of .npy and .npz files: nothing is taken on trust that a header or an archive declares."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from hpo.errors import DataError
from hpo.utils.arrays import open_npz, read_npy

TYPES = ("u1", "<i2", ">i4", "<f4", ">f8", "?", "<U3")
SOME = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def npy(header: str, data: bytes = b"abc", version: bytes = b"\x01\x00") -> bytes:
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    return b"\x93NUMPY" + version + size + header.encode("latin1") + data


def declared(shape: str, kind: str = "|u1") -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n"


def saved(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    kinds = st.sampled_from(TYPES).map(np.dtype)

    @settings(max_examples=50, deadline=None, database=None)
    @given(kinds.flatmap(lambda kind: arrays_of.arrays(kind, arrays_of.array_shapes(min_dims=0, min_side=0))))
    def check(array: np.ndarray[Any, Any]) -> None:
        for each in (array, np.asfortranarray(array)):
            np.save(tmp_path / "one.npy", each)
            np.savez_compressed(tmp_path / "some.npz", a=each, b=SOME)
            with open_npz(tmp_path / "some.npz") as file:
                found = [read_npy(tmp_path / "one.npy"), file.read("a")]
                assert (file.names, file.shape("a")) == ({"a", "b"}, each.shape)
            for other in found:
                np.testing.assert_array_equal(other, each)
                assert other.dtype == each.dtype

    check()


HEADERS = {
    "a shape of 10^12": (npy(declared("(1000000000000,)")), "needs 1000000000000 bytes, but it has 3"),
    "a shape beyond every number": (npy(declared(f"({10**30}, {10**30})")), "but it has 3"),
    "a shape of nothing in a large one": (npy(declared(f"(0, {2**62}, 8)")), "but it has 3"),
    "a negative shape": (npy(declared("(-1,)")), "its shape is"),
    "a shape of text": (npy(declared("'abc'")), "header is damaged"),
    "a large type": (npy(declared("(1,)", "|V999999999")), "but it has 3"),
    "an unknown type": (npy(declared("(1,)", "<q9")), "header is damaged"),
    "too few bytes": (saved(SOME)[:-1], "needs 96 bytes, but it has 95"),
    "too many bytes": (saved(SOME) + b"x", "needs 96 bytes, but it has 97"),
    "an open bracket": (npy("{'descr': '|u1', 'fortran_order': Fal" + " " * 60), "header is damaged"),
    "open brackets": (npy("(" * 5000), "header is damaged"),
    "no text": (npy("\xff" * 60), "header is damaged"),
    "a call": (npy("__import__('os').getcwd()"), "header is damaged"),
    "a long header": (npy(declared("(3,)") + " " * 20_000), "header is damaged"),
    "half a header": (saved(SOME)[:40], "header is damaged"),
    "another version": (npy(declared("(3,)"), version=b"\x03\x00"), "version 3.0"),
    "objects": (saved(np.array([{}, 1], dtype=object)), "objects, not numbers"),
    "nothing": (b"", "header is damaged"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "header is damaged"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_damaged_array_is_one_line_and_takes_no_memory(case: str, tmp_path: Path) -> None:
    content, words = HEADERS[case]
    (tmp_path / "one.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "some.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as alone:
            read_npy(tmp_path / "one.npy")
        with open_npz(tmp_path / "some.npz") as file, pytest.raises(DataError) as packed:
            file.read("a")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    for error, start in ((alone, "one.npy: is no complete .npy file ("), (packed, "some.npz: a cannot be read (")):
        assert str(error.value).startswith(f"{tmp_path}/{start}")
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_an_archive_under_the_name_of_an_array_and_the_other_way_round(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", a=SOME)
    (tmp_path / "some.npz").rename(tmp_path / "some.npy")
    with pytest.raises(DataError, match=r"some\.npy: is an archive of arrays"):
        read_npy(tmp_path / "some.npy")
    np.save(tmp_path / "one.npy", SOME)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(DataError, match=r"one\.npz: holds a single array"), open_npz(tmp_path / "one.npz"):
        pass


def test_what_unpacks_to_more_than_the_limit_is_not_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "some.npz", a=np.zeros(50_000_000, np.uint8), b=SOME)
    assert (tmp_path / "some.npz").stat().st_size < 100_000
    tracemalloc.start()
    try:
        with open_npz(tmp_path / "some.npz", limit=1_000_000) as file:
            np.testing.assert_array_equal(file.read("b"), SOME)
            with pytest.raises(DataError, match=r"a has 50,000,128 bytes, more than the 1,000,000"):
                file.read("a")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_another_compression_is_refused(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "some.npz", "w", method) as archive:
        archive.writestr("a.npy", saved(SOME))
    with open_npz(tmp_path / "some.npz") as file, pytest.raises(DataError, match="another method than NumPy's"):
        file.read("a")


def test_a_member_that_declares_more_than_it_has(tmp_path: Path) -> None:
    header = npy(declared("(1000000000000,)"), b"")
    with zipfile.ZipFile(tmp_path / "some.npz", "w") as archive:
        archive.writestr("a.npy", header)
    size, lie = struct.pack("<I", len(header)), struct.pack("<I", 2**32 - 2)
    (tmp_path / "some.npz").write_bytes((tmp_path / "some.npz").read_bytes().replace(size, lie))
    with open_npz(tmp_path / "some.npz", limit=2**40) as file, pytest.raises(DataError, match="a cannot be read"):
        file.read("a")


def test_a_missing_array_and_a_missing_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", a=SOME)
    with open_npz(tmp_path / "some.npz", advice="do so") as file, pytest.raises(DataError, match="has no b; do so"):
        file.read("b")
    with pytest.raises(DataError, match=r"none\.npy: cannot be read"):
        read_npy(tmp_path / "none.npy")
