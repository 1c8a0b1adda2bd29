"""Reading frames: the same bytes by every way, and no frame that is not whole."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from ltr.data import decoders, image_loader, jpeg_parts
from ltr.data.crop import CropGeometry, cut
from ltr.data.image_loader import BadImage, Part, channel_mean, open_frame, read_image, reduction


@pytest.fixture(scope="module")
def frames(shared):
    """One real frame of each sequence."""
    folders = sorted({path.parent for path in shared("sequences").rglob("*.jpg")})
    return [sorted(folder.glob("*.jpg"))[-1] for folder in folders]


@pytest.fixture(scope="module")
def large(shared, tmp_path_factory):
    """A 1280x720 JPEG file, full of colour whatever the frame: its channels are shifted apart."""
    source = sorted(shared("sequences", "LaSOT").glob("*/*/img/*.jpg"))[0]
    path = tmp_path_factory.mktemp("large") / "frame.jpg"
    image = cv2.resize(cv2.imread(str(source)), (1280, 720), interpolation=cv2.INTER_CUBIC)
    image = np.stack([np.roll(image[..., channel], 40 * channel, (0, 1)) for channel in range(3)], -1)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return path


def plain(path):
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]


def test_real_frames_as_opencv_reads_them(frames):
    assert len(frames) > 5
    for path in frames:
        assert np.array_equal(read_image(path), plain(path)), path


def without(monkeypatch, *decoders):
    """As if these were not installed."""
    if "TurboJPEG" in decoders:
        monkeypatch.setattr(jpeg_parts, "available", lambda: None)
    if "simplejpeg" in decoders:
        monkeypatch.setattr(image_loader, "simplejpeg", None)


@pytest.fixture(scope="module")
def sampled(large, tmp_path_factory):
    """One picture of odd size, stored in all the ways of sampling colour."""
    folder = tmp_path_factory.mktemp("sampled")
    picture = Image.open(large).crop((100, 50, 543, 387))
    files = []
    for name, mode, subsampling in (
        ("444", "RGB", 0),
        ("422", "RGB", 1),
        ("420", "RGB", 2),
        ("grey", "L", -1),
    ):
        files.append(folder / f"{name}.jpg")
        picture.convert(mode).save(files[-1], quality=85, subsampling=subsampling)
    for name in ("411", "440"):
        files.append(folder / f"{name}.jpg")
        factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}")
        pixels = np.asarray(picture)[..., ::-1]
        cv2.imwrite(str(files[-1]), pixels, [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor])
    files.append(folder / "restart.jpg")
    cv2.imwrite(str(files[-1]), np.asarray(picture), [cv2.IMWRITE_JPEG_RST_INTERVAL, 3])
    return [large, *files]


UPPER = Part(0, 0, 1280, 40)
SIDES = st.integers(-60, 1400)


@settings(deadline=None, max_examples=300)
@example(number=0, corner=(0, 320), size=(1280, 1), reduced=1)  # begins with a line of blocks
@example(number=3, corner=(-5, -5), size=(3, 3), reduced=8)  # outside
@example(number=3, corner=(442, 336), size=(1, 1), reduced=8)  # the last pixel of an odd size
@given(
    number=st.integers(0, 7),
    corner=st.tuples(SIDES, SIDES),
    size=st.tuples(st.integers(1, 900), st.integers(1, 900)),
    reduced=st.sampled_from([1, 2, 4, 8]),
)
def test_a_part_is_the_same_as_in_the_whole(sampled, number, corner, size, reduced):
    frame = open_frame(sampled[number])
    part = Part(*corner, corner[0] + size[0], corner[1] + size[1])
    region, whole = frame.region(part, reduced), frame.region(None, reduced)
    height, width = -(-frame.height // reduced), -(-frame.width // reduced)
    assert whole.whole and whole.pixels.shape == (height, width, 3)
    assert region.whole == (region.pixels.shape == whole.pixels.shape)
    assert (region.width, region.height, region.reduced) == (frame.width, frame.height, reduced)
    assert not any(np.mod(region.origin, reduced))
    (left, top), (h, w) = np.array(region.origin) // reduced, region.pixels.shape[:2]
    assert np.array_equal(region.pixels, whole.pixels[top : top + h, left : left + w])
    # All of the part that the frame has, and no more than a decoded pixel or two beyond it.
    for first, count, lowest, highest, extent in (
        (left, w, part.left, part.right, frame.width),
        (top, h, part.top, part.bottom, frame.height),
    ):
        assert first * reduced <= max(min(lowest, extent - 1), 0)
        assert (first + count) * reduced >= min(max(highest, 1), extent)
        assert count * reduced <= highest - lowest + 4 * reduced
    if reduced == 1:
        assert np.array_equal(whole.pixels, plain(sampled[number]))


def test_a_part_costs_no_more_than_it_must(large, monkeypatch):
    """No decoder is given a whole frame where a part of it is enough, with TurboJPEG or without."""
    asked = []

    class Watched(image_loader.Scratch):
        def pixels(self, height, width):
            asked.append((height, width))
            return super().pixels(height, width)

    open_frame(large).region(Part(500, 200, 600, 300), scratch=Watched())
    assert asked == [(102, 137)]
    without(monkeypatch, "TurboJPEG")
    open_frame(large).region(Part(500, 200, 600, 300), scratch=Watched())
    assert asked[1:] == [(320, 1280)]


def test_memory_is_used_again_and_crops_do_not_lie_in_it(sampled, tmp_path):
    scratch, upright = image_loader.Scratch(), tmp_path / "upright.jpg"
    Image.open(sampled[0]).transpose(Image.Transpose.ROTATE_90).save(upright)
    parts = [None, Part(0, 0, 1, 100), Part(33, 47, 240, 171)]
    for path, part, reduced in itertools.product([*sampled, upright], parts, (1, 2, 8)):
        frame = open_frame(path)
        own, lent = frame.region(part, reduced), frame.region(part, reduced, scratch)
        assert own.origin == lent.origin and np.array_equal(own.pixels, lent.pixels)
        height, width = own.pixels.shape[:2]
        assert np.may_share_memory(lent.pixels, scratch.pixels(height, width))
        for side in {min(height, width), 64}:  # the first without borders, once in whole rows
            for size in (side, 32):
                square = CropGeometry(side * reduced, *own.origin, size / side / reduced)
                one, other = (cut(r.pixels, square, size, (1, 2, 3), r.origin, reduced) for r in (own, lent))
                assert np.array_equal(one, other) and not np.may_share_memory(other, lent.pixels)


def test_a_reduced_frame_shows_the_same(large):
    for reduced in (2, 4, 8):
        region = open_frame(large).region(None, reduced)
        assert np.abs(channel_mean(region) - plain(large).mean((0, 1))).max() < 0.5
        area = cv2.resize(plain(large), region.pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(area.astype(int) - region.pixels).mean() < 3


@given(side=st.integers(1, 5000), size=st.integers(1, 600))
def test_a_crop_is_never_decoded_smaller_than_it_becomes(side, size):
    scale = reduction(side, size)
    assert side >= size * scale or scale == 1
    assert scale == 8 or side < 2 * scale * size


def test_the_fallbacks_give_the_same_bytes_at_every_scale(frames, sampled, monkeypatch):
    parts = [None, Part(0, 0, 1, 100), Part(33, 47, 240, 171)]
    paths = [*sampled, *frames[:3]]

    def regions():
        return [open_frame(path).region(part, k) for path in paths for part in parts for k in (1, 2, 4, 8)]

    fast = regions()
    for missing in (["TurboJPEG"], ["simplejpeg"], ["TurboJPEG", "simplejpeg"]):
        with monkeypatch.context() as patch:
            without(patch, *missing)
            for one, other in zip(fast, regions(), strict=True):
                assert one.origin == other.origin and np.array_equal(one.pixels, other.pixels), missing


def test_every_installed_decoder_gives_the_same_pixels(frames, monkeypatch):
    timings = decoders.measure()
    wholes = [timing for timing in timings if not timing.part]
    assert {"simplejpeg", "OpenCV", "torchvision", "Pillow"} <= {timing.name for timing in wholes}
    assert [timing.name for timing in wholes if timing.used] == ["simplejpeg"]
    parts = {timing.name: timing for timing in timings if timing.part}
    assert parts.keys() == {"TurboJPEG", "upper rows"} and parts["TurboJPEG"].used
    assert all(timing.agrees and timing.milliseconds > 0 for timing in timings)
    without(monkeypatch, "TurboJPEG", "simplejpeg")
    used = [timing.name for timing in decoders.measure() if timing.used]
    assert sorted(used) == ["OpenCV", "upper rows"]
    for path in frames:
        for name, decoder in decoders.installed().items():
            assert np.array_equal(decoder.decode(path.read_bytes()), read_image(path)), (name, path)


@pytest.mark.faults
@pytest.mark.parametrize("missing", [(), ("TurboJPEG",), ("TurboJPEG", "simplejpeg")])
@pytest.mark.parametrize("share", [0.0, 0.0005, 0.002, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_named(large, tmp_path, monkeypatch, share, missing):
    without(monkeypatch, *missing)
    data = large.read_bytes()
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: int(len(data) * share)])
    for read in (read_image, lambda p: open_frame(p).region(UPPER)):
        with pytest.raises(BadImage, match=r"cut\.jpg: is (truncated|empty|no image)"):
            read(path)


@pytest.mark.faults
@pytest.mark.parametrize("filler", ["zeros", "noise"])
def test_an_overwritten_block_is_noticed(large, tmp_path, filler):
    data = bytearray(large.read_bytes())
    noise = np.random.default_rng(3).bytes(4096)
    middle = len(data) // 2
    data[middle : middle + 4096] = bytes(4096) if filler == "zeros" else noise
    path = tmp_path / "hole.jpg"
    path.write_bytes(data)
    for read in (read_image, lambda p: open_frame(p).region(UPPER)):
        with pytest.raises(BadImage, match="is corrupt"):
            read(path)


@pytest.mark.faults
@settings(deadline=None, max_examples=150)
@example(
    data=b"\xff\xd8\xff\xc0\x00\x06\x08\x00\x10\x00\xff\xda\x00\x04\x00\x00", header=False
)  # a header too short
@given(data=st.binary(max_size=400), header=st.booleans())
def test_any_bytes_give_an_image_or_bad_image(tmp_path_factory, data, header):
    path = tmp_path_factory.getbasetemp() / "bytes.jpg"
    path.write_bytes((b"\xff\xd8\xff\xc0\x00\x11\x08" if header else b"") + data)
    try:
        assert read_image(path).ndim == 3
    except BadImage as error:
        assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.faults
def test_what_is_no_file(tmp_path):
    (tmp_path / "text.jpg").write_text("no image at all\n")
    for name in ("text.jpg", "missing.jpg", "."):
        with pytest.raises(BadImage, match="is no image|cannot be read"):
            read_image(tmp_path / name)


def test_other_kinds_of_image(large, tmp_path):
    image = cv2.imread(str(large))[:200, :300]
    kinds = {
        "gray.jpg": (image[..., 0], []),
        "progressive.jpg": (image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        "restart.jpg": (image, [cv2.IMWRITE_JPEG_RST_INTERVAL, 4]),
        "frame.png": (image, []),
    }
    for name, (pixels, options) in kinds.items():
        cv2.imwrite(str(tmp_path / name), pixels, options)
        assert np.array_equal(read_image(tmp_path / name), plain(tmp_path / name)), name
        region = open_frame(tmp_path / name).region(Part(0, 0, 300, 60))
        assert np.array_equal(region.pixels[:60], plain(tmp_path / name)[:60]), name


@settings(max_examples=60)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([0, 3, 4]),
    bits=st.sampled_from([8, 16]),
    suffix=st.sampled_from([".png", ".tif"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_grey_16_bit_and_alpha_become_rgb(tmp_path_factory, height, width, channels, bits, suffix, seed):
    """Whatever the depth and channels of a lossless file: its colours by their upper 8 bits, without alpha."""
    shape = (height, width, channels) if channels else (height, width)
    levels = np.random.default_rng(seed).integers(0, 1 << bits, shape).astype(f"uint{bits}")
    path = tmp_path_factory.getbasetemp() / f"levels{suffix}"
    cv2.imwrite(str(path), levels)
    upper = (levels >> (bits - 8)).astype(np.uint8)
    colours = upper[..., 2::-1] if channels else np.repeat(upper[..., None], 3, axis=2)
    image = read_image(path)
    assert image.dtype == np.uint8 and image.shape == (height, width, 3) and image.flags.c_contiguous
    rounded = 1 if suffix == ".tif" and bits == 16 else 0
    assert np.abs(image.astype(int) - colours).max() <= rounded
    region = open_frame(path).region(Part(0, 0, 9, 1), 8)
    assert np.array_equal(region.pixels, image)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "CMYK"])
def test_rarer_kinds_of_colour_as_pillow_reads_them(large, tmp_path, mode):
    source = Image.open(large).crop((0, 0, 120, 80))
    path = tmp_path / ("frame.jpg" if mode == "CMYK" else "frame.png")
    source.convert(mode).save(path)
    expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert np.abs(read_image(path) - expected).max() <= (2 if mode == "CMYK" else 0)


@pytest.mark.faults
def test_levels_of_other_types_are_named(large, tmp_path):
    image = cv2.imread(str(large))[:40, :60]
    cv2.imwrite(str(tmp_path / "float.tif"), image.astype(np.float32) / 255)
    data = bytearray(large.read_bytes())
    data[data.index(b"\xff\xc0") + 4] = 12
    (tmp_path / "twelve.jpg").write_bytes(data)
    for name, reason in (("float.tif", "float32; convert them to 8 or 16 bits"), ("twelve.jpg", "12 bits")):
        with pytest.raises(BadImage, match=rf"{name}: .*{reason}"):
            read_image(tmp_path / name)


@pytest.mark.faults
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("name", ["grey16.png", "alpha.png", "frame.bmp", "frame.tif"])
def test_truncated_files_of_every_kind_are_named_without_noise(large, tmp_path, capfd, name, share):
    image = cv2.imread(str(large))
    kinds = {
        "grey16.png": image[..., 0].astype(np.uint16) << 8,
        "alpha.png": np.dstack([image, image[..., 0]]),
    }
    path = tmp_path / name
    cv2.imwrite(str(path), kinds.get(name, image))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadImage, match=rf"{name}: is (truncated|no image)"):
        read_image(path)
    assert capfd.readouterr() == ("", "")
