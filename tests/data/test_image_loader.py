"""Reading frames: the same bytes by every way, and no frame that is not whole."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from ltr.data import decoders, image_loader
from ltr.data.image_loader import BadImage, channel_mean, open_frame, read_image, reduction


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


@settings(deadline=None, max_examples=40)
@example(bottom=320, reduced=1)  # ends with a line of blocks
@example(bottom=-5, reduced=2)
@given(bottom=st.integers(-50, 900), reduced=st.sampled_from([1, 2, 4, 8]))
def test_the_upper_rows_are_the_same_as_those_of_the_whole(large, bottom, reduced):
    frame = open_frame(large)
    region, whole = frame.region(bottom, reduced), frame.region(None, reduced)
    assert (region.width, region.height, region.reduced) == (1280, 720, reduced)
    assert whole.whole and whole.pixels.shape == (720 // reduced, 1280 // reduced, 3)
    rows = -(-min(max(bottom, 0), 720) // reduced)
    assert np.array_equal(region.pixels[:rows], whole.pixels[:rows])
    assert region.whole == (len(region.pixels) == len(whole.pixels))
    assert region.whole or len(region.pixels) * reduced <= max(bottom, 1) + 32 + reduced
    if reduced == 1:
        assert np.array_equal(whole.pixels, plain(large))


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


def test_the_fallback_gives_the_same_bytes_at_every_scale(frames, large, monkeypatch):
    ways = [(bottom, reduced) for bottom in (None, 100) for reduced in (1, 2, 4, 8)]
    paths = [large, *frames[:3]]
    fast = [open_frame(path).region(*way).pixels for path in paths for way in ways]
    monkeypatch.setattr(image_loader, "simplejpeg", None)
    assert "OpenCV" in [timing.name for timing in decoders.measure() if timing.used]
    slow = [open_frame(path).region(*way).pixels for path in paths for way in ways]
    assert all(np.array_equal(a, b) for a, b in zip(fast, slow))
    assert np.array_equal(read_image(large), plain(large))


def test_every_installed_decoder_gives_the_same_pixels(frames):
    timings = decoders.measure()
    assert {"simplejpeg", "OpenCV", "torchvision", "Pillow"} <= {timing.name for timing in timings}
    assert [timing.name for timing in timings if timing.used] == ["simplejpeg"]
    assert all(timing.agrees and timing.milliseconds > 0 for timing in timings)
    for path in frames:
        for name, decoder in decoders.installed().items():
            assert np.array_equal(decoder.decode(path.read_bytes()), read_image(path)), (name, path)


@pytest.mark.faults
@pytest.mark.parametrize("decoder", ["fastest", "opencv"])
@pytest.mark.parametrize("share", [0.0, 0.0005, 0.002, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_named(large, tmp_path, monkeypatch, share, decoder):
    if decoder == "opencv":
        monkeypatch.setattr(image_loader, "simplejpeg", None)
    data = large.read_bytes()
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: int(len(data) * share)])
    for read in (read_image, lambda p: open_frame(p).region(40)):
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
    for read in (read_image, lambda p: open_frame(p).region(40)):
        with pytest.raises(BadImage, match="is corrupt"):
            read(path)


@pytest.mark.faults
@settings(deadline=None, max_examples=150)
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
        region = open_frame(tmp_path / name).region(60)
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
    region = open_frame(path).region(1, 8)
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
