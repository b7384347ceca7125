"""Decoding once: what is stored, what is found, and what happens to work that is cut short."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from nas.data import DataError, open_dataset
from nas.data.packing import SPLITS, Findings, choose_side, nearest, pack, read_findings
from nas.data.prepared import Description, read_description
from nas.data.sources import open_source
from nas.data.sources.folder import FolderSource
from tests.nas.disks import disk
from tests.nas.images import write_folder, write_image
from tests.nas.photographs import photographs, write_photographs
from tests.nas.programs import PATIENCE, ROOT

pytestmark = pytest.mark.timeout(600)  # processes that decode load torch, which takes its time on a busy machine


def packed(
    folder: Path, out: Path, *, resolution: int = 16, side: int = 20, bad_images: str = "stop", workers: int = 1
) -> tuple[Description, Findings]:
    source = FolderSource(str(folder))
    return pack(source, out, resolution=resolution, side=side, num_workers=workers, bad_images=bad_images)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def program(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nas.prepare", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


# What is stored and what is found


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of several sizes and modes, whose val has images that train has too: one exact, two nearly so."""
    root = write_photographs(tmp_path_factory.mktemp("odd"), side=48, per_class=30)
    held_out = {FolderSource(str(root)).path("val", place) for place in range(6)}
    free = [path for path in sorted(root.glob("train/*/*")) if str(path.relative_to(root)) not in held_out]
    first = next(path for path in free if path.parent.name == "a")
    second = next(path for path in free if path.parent.name == "b")
    shutil.copy(first, root / "val/a/copy.jpg")
    with Image.open(second) as image:
        image.save(root / "val/b/again.jpg", quality=60)
        ImageEnhance.Brightness(image).enhance(1.05).resize((80, 80)).save(root / "val/b/larger.jpg")
    write_image(root / "train/a/wide.png", size=(90, 30), seed=1)
    write_image(root / "train/a/tiny.png", size=(6, 7), mode="L", seed=2)
    write_image(root / "train/b/palette.png", size=(50, 60), mode="P", seed=3)
    write_image(root / "train/b/deep.png", size=(50, 60), mode="I;16", seed=4)
    write_image(root / "train/b/print.jpg", size=(50, 60), mode="CMYK", seed=5)
    return root


@pytest.fixture(scope="module")
def of_odd(odd: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Description, Findings]:
    out = tmp_path_factory.mktemp("of_odd") / "out"
    return out, *packed(odd, out, resolution=32, side=40, workers=2)


def test_each_image_is_stored_as_its_middle_square_in_the_order_of_the_source(
    odd: Path, of_odd: tuple[Path, Description, Findings]
) -> None:
    """Pillow's own crop and resize are the oracle."""
    out, description, _ = of_odd
    source = FolderSource(str(odd))
    for split in SPLITS:
        stored = np.load(out / f"{split}_images.npy")
        assert np.load(out / f"{split}_labels.npy").tolist() == source.labels[split].tolist()
        assert description.num_images[split] == len(stored)
        for place, image_SSC in enumerate(stored):
            image = source.read(split, place)
            edge = [(length - min(image.size)) / 2 for length in image.size]
            box = (*edge, *(start + min(image.size) for start in edge))
            expected = image.resize((40, 40), Image.Resampling.BICUBIC, box=box)
            assert (image_SSC == np.asarray(expected)).all()


def test_mean_and_deviation_are_those_of_the_training_images(of_odd: tuple[Path, Description, Findings]) -> None:
    out, description, _ = of_odd
    pixels_PC = np.load(out / "train_images.npy").reshape(-1, 3) / 255
    np.testing.assert_allclose(description.mean, pixels_PC.mean(0), atol=1e-6)
    np.testing.assert_allclose(description.std, pixels_PC.std(0), atol=1e-6)


def test_imagenet_keeps_the_numbers_that_all_use(tmp_path: Path) -> None:
    names = [f"n{number:08d}" for number in range(1000)]
    for name in names:
        for path in (f"train/{name}/0.png", f"train/{name}/1.png", f"val/{name}/0.png"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 7).save(tmp_path / path)
    description, _ = packed(tmp_path, tmp_path / "out", resolution=8, side=8)
    assert description.mean == (0.485, 0.456, 0.406)
    assert description.std == (0.229, 0.224, 0.225)


def test_sizes_modes_classes_and_leakage_are_told(odd: Path, of_odd: tuple[Path, Description, Findings]) -> None:
    out, description, findings = of_odd
    assert findings == read_findings(out)
    assert description == read_description(out)
    counts = np.bincount(FolderSource(str(odd)).labels["train"]).tolist()
    assert findings.class_sizes == dict(zip("ab", counts, strict=True))
    assert findings.modes == {"RGB": 60 + 8 + 3 + 1, "L": 1, "P": 1, "I;16": 1, "CMYK": 1}
    assert findings.shorter_side == (6, 48, 80)
    assert findings.num_enlarged == 2  # 30 and 6 pixels
    assert findings.num_unreadable == 0
    assert findings.num_bytes == sum((out / f"{split}_images.npy").stat().st_size for split in SPLITS)
    assert findings.num_duplicates == {"val": {"exact": 0, "near": 0}, "test": {"exact": 1, "near": 2}}
    found = {pair.image: (pair.of, pair.exact) for pair in findings.duplicates}
    assert set(found) == {"val/a/copy.jpg", "val/b/again.jpg", "val/b/larger.jpg"}
    original, exact = found["val/a/copy.jpg"]
    assert exact
    assert (odd / original).read_bytes() == (odd / "val/a/copy.jpg").read_bytes()
    assert found["val/b/again.jpg"] == found["val/b/larger.jpg"]
    assert found["val/b/again.jpg"][0].startswith("train/b/")


def test_photographs_that_are_not_the_same_are_not_taken_for_one_another() -> None:
    thumbs = [photographs(300, 16, seed=seed).mean(3).astype(np.uint8) for seed in (1, 2)]
    assert (nearest(*thumbs) == -1).mean() > 0.99
    assert nearest(thumbs[0], thumbs[0]).tolist() == list(range(300))
    plain = np.stack([np.full((16, 16), level, np.uint8) for level in (0, 7, 7, 255)])
    assert nearest(plain, plain).tolist() == [-1] * 4
    noisy = (thumbs[0] + np.random.default_rng(0).normal(0, 2, thumbs[0].shape)).clip(0, 255).astype(np.uint8)
    assert (nearest(noisy, thumbs[0]) == np.arange(300)).mean() > 0.9  # some have hardly any contrast


def test_the_number_of_processes_changes_nothing(odd: Path, of_odd: tuple[Path, Description, Findings]) -> None:
    packed(odd, of_odd[0].with_name("again"), resolution=32, side=40, workers=1)
    assert files(of_odd[0].with_name("again")) == files(of_odd[0])
    names = {f"{split}_{kind}.npy" for split in SPLITS for kind in ("images", "labels")}
    assert set(files(of_odd[0])) == names | {"prepared.json", "findings.json"}


def test_images_of_one_size_are_stored_as_they_are_and_others_with_a_border(tmp_path: Path, odd: Path) -> None:
    for side, resolution, stored in ((32, 32, 32), (32, 28, 32), (40, 32, 40), (48, 32, 37), (28, 32, 37)):
        folder = write_folder(
            tmp_path / f"{side}-{resolution}", train={"a": 2, "b": 2}, val={"a": 1, "b": 1}, size=(side, side)
        )
        assert choose_side(open_source(f"folder:{folder}"), resolution) == stored
    assert choose_side(open_source(f"folder:{odd}"), 224) == 256


# Bad images


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    root = write_folder(tmp_path / "spoilt", train={"a": 8, "b": 8}, val={"a": 3, "b": 3}, size=(20, 20))
    (root / "train/a/3.jpg").write_bytes((root / "train/a/3.jpg").read_bytes()[:300])
    (root / "val/b/1.jpg").write_bytes(b"not an image")
    return root


def test_an_unreadable_image_stops_the_work_in_one_line_or_is_left_out_and_named(spoilt: Path) -> None:
    out = spoilt.with_name("out")
    with pytest.raises(DataError, match=r"^image: must be readable, got '.*/(train/a/3|val/b/1).jpg' \(.+\)$"):
        packed(spoilt, out)
    assert not out.exists()
    shutil.rmtree(out.with_name("out.part"))
    description, findings = packed(spoilt, out, bad_images="skip")
    assert findings.num_unreadable == 2
    assert set(description.unreadable) == {"train/a/3.jpg", "val/b/1.jpg"}
    dataset = open_dataset(f"prepared:{out}", resolution=16)
    folder = open_dataset(f"folder:{spoilt}", resolution=16)
    assert sum(folder.info.num_images.values()) - sum(dataset.info.num_images.values()) == 2
    assert dataset.left_out() == list(description.unreadable)
    pixels_PC = np.load(out / "train_images.npy")[np.load(out / "train_labels.npy") >= 0].reshape(-1, 3) / 255
    np.testing.assert_allclose(description.mean, pixels_PC.mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("train/b/*", "^image: must be readable at least once in each class of train, got none in, got 'b'$"),
        ("val/*/*", "^image: must be readable at least once in test, got 6 that are not, got 'folder:.*'$"),
    ],
)
def test_a_class_or_a_split_without_a_readable_image_is_refused(spoilt: Path, pattern: str, message: str) -> None:
    for path in spoilt.glob(pattern):
        path.write_bytes(b"not an image")
    with pytest.raises(DataError, match=message):
        packed(spoilt, spoilt.with_name("out"), bad_images="skip")
    assert not spoilt.with_name("out").exists()


# Work that is cut short


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several chunks of work: 2,400 small images."""
    return write_folder(
        tmp_path_factory.mktemp("many"), train={"a": 1000, "b": 1000}, val={"a": 200, "b": 200}, size=(24, 24)
    )


def begun(part: Path) -> int:
    """Chunks that are done."""
    return len(list((part / "chunks").glob("[a-z]*.json")))


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def is_there(group: int) -> bool:
    """Whether a process of the group still runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_killed_in_the_middle_the_same_command_goes_on_to_the_same_bytes(many: Path, tmp_path: Path) -> None:
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    packed(many, undisturbed, side=24)
    arguments = (f"folder:{many}", "--out", out, "--resolution", "16", "--side", "24", "--workers", "1")
    command = [sys.executable, "-m", "nas.prepare", *map(str, arguments)]
    for least, kill in ((1, os.kill), (3, os.killpg)):  # the program alone, whose processes then end too; all at once
        killed = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(lambda least=least: begun(tmp_path / "out.part") >= least)
        kill(killed.pid, signal.SIGKILL)
        killed.wait()
        wait_until(lambda group=killed.pid: not is_there(group))
        assert not out.exists()
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out.part/chunks").glob("[a-z]*.json")}
    again = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    said, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0
    assert said.startswith("images   train 1,800, val 200, test 400\n")
    assert len(done) >= 3
    assert files(out) == files(undisturbed)
    assert not (tmp_path / "out.part").exists()


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """Work that was stopped by an image that cannot be read, which is whole by now; it lies in out.part."""
    root = write_folder(tmp_path / "folder", train={"a": 8, "b": 8}, val={"a": 3, "b": 3}, size=(20, 20))
    whole = (root / "val/b/1.jpg").read_bytes()
    (root / "val/b/1.jpg").write_bytes(b"not an image")
    with pytest.raises(DataError, match="^image: must be readable"):
        packed(root, tmp_path / "out")
    (root / "val/b/1.jpg").write_bytes(whole)
    return tmp_path / "out.part"


def test_work_that_was_stopped_goes_on(part: Path) -> None:
    assert begun(part) == 2  # train and val
    packed(part.with_name("folder"), part.with_name("out"))
    packed(part.with_name("folder"), part.with_name("other"))
    assert files(part.with_name("out")) == files(part.with_name("other"))


def _rename_an_image(part: Path) -> None:
    image = part.with_name("folder") / "train/a/0.jpg"
    image.rename(image.with_name("another.jpg"))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (_rename_an_image, {}, r"was begun with source_fingerprint [0-9a-f]{16}; remove it, or say the same, got '.*'"),
        (None, {"side": 24}, r"'.*out.part' was begun with side 20; remove it, or say the same, got 24"),
        (None, {"resolution": 20}, "was begun with resolution 16; remove it, or say the same, got 20"),
        (None, {"bad_images": "skip"}, "was begun with bad_images stop; remove it, or say the same, got 'skip'"),
        (
            lambda part: (part / "job.json").write_text("{"),
            {},
            "must hold no damaged job; remove it to begin again, got '.*out.part'",
        ),
        (
            lambda part: (part / "job.json").write_text((part / "job.json").read_text().replace(":1,", ":0,", 1)),
            {},
            "was begun with version 0; remove it, or say the same, got 1",
        ),
    ],
)
def test_another_job_does_not_go_on_with_this_ones_work(
    part: Path, change: Callable[[Path], object] | None, options: dict[str, object], message: str
) -> None:
    if change is not None:
        change(part)
    before = {path: path.stat().st_mtime_ns for path in part.rglob("*.npy")}
    with pytest.raises(DataError, match=f"^out: .*{message}$"):
        packed(part.with_name("folder"), part.with_name("out"), **options)
    assert before == {path: path.stat().st_mtime_ns for path in part.rglob("*.npy")}


@pytest.mark.parametrize("spoil", ["train_images.npy", "test_thumbs.npy", "val_digests.npy"])
def test_an_array_of_unfinished_work_that_was_cut_short_is_refused(part: Path, spoil: str) -> None:
    data = (part / spoil).read_bytes()
    (part / spoil).write_bytes(data[:-1])
    message = f"^out: must hold whole arrays; remove it to begin again, got '.*{spoil}'$"
    with pytest.raises(DataError, match=message):
        packed(part.with_name("folder"), part.with_name("out"))


def test_what_is_there_is_not_written_over(part: Path, tmp_path: Path) -> None:
    for name in ("folder", "out.part/job.json"):
        with pytest.raises(DataError, match=rf"^out: must not exist, got '.*{name}'$"):
            packed(part.with_name("folder"), tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"^out: must not exist, got '.*link'$"):
        packed(part.with_name("folder"), tmp_path / "link")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"^out: must be on a disk that takes it \(.*\); what is done is kept, got '"):
        packed(part.with_name("folder"), tmp_path / "file" / "out")


def test_a_second_process_is_refused_while_the_first_is_at_work(part: Path) -> None:
    code = (
        "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); print(flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(part / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(DataError, match=r"^out: must not be at work in another process, got '.*out.part'$"):
            packed(part.with_name("folder"), part.with_name("out"))
        other.kill()
    packed(part.with_name("folder"), part.with_name("out"))


def test_a_disk_that_is_too_small_says_so_before_the_work_begins_and_leaves_nothing_to_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", train={"a": 40, "b": 40}, val={"a": 9, "b": 9}, size=(64, 64))
    with disk(tmp_path / "disk", size="1m") as path:
        with pytest.raises(
            DataError, match=r"^out: must be on a disk that takes it \(No space left on device\); .*part'$"
        ):
            packed(folder, path / "out", resolution=56, side=64)
        assert not (path / "out").exists()
        assert not list(path.rglob("job.json"))
        with pytest.raises(DataError, match="^dataset: PATH of prepared:PATH must be a folder"):
            open_dataset(f"prepared:{path / 'out'}", resolution=56)


@pytest.mark.slow
def test_a_disk_that_fills_while_the_work_goes_on_stops_it_and_the_same_command_ends_it(
    tmp_path: Path, many: Path
) -> None:
    with disk(tmp_path / "disk", size="3m") as path:
        source = FolderSource(str(many))
        filler = path / "filler"

        def fill(_: int) -> None:
            if not filler.exists():
                with filler.open("wb") as file:
                    size = os.statvfs(path).f_bavail * os.statvfs(path).f_bsize
                    os.posix_fallocate(file.fileno(), 0, size)

        options = {"resolution": 8, "side": 12, "num_workers": 1, "bad_images": "stop"}
        with pytest.raises(DataError, match=r"^out: must be on a disk that takes it \(No space left on device\)"):
            pack(source, path / "out", progress=fill, **options)
        assert not (path / "out").exists()
        filler.unlink()
        pack(source, path / "out", **options)
        pack(source, tmp_path / "elsewhere", **options)
        assert files(path / "out") == files(tmp_path / "elsewhere")


# The program


@pytest.mark.slow
def test_the_program_tells_what_it_found_and_what_to_type_next(odd: Path, tmp_path: Path) -> None:
    done = program(f"folder:{odd}", "--out", tmp_path / "out", "--resolution", "32", "--workers", "1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == (
        ["images", "classes", "sides", "modes", "bad", "leakage", "leakage", "written", "next"]
    )
    assert "leakage  1 images of test are in train too, 2 more nearly so" in lines
    assert lines[2].startswith("sides    shorter side 6 to 80 pixels, median 48; stored at 37 for models that see 32")
    search = "python -m nas.search --space hybrid_stages --budget 60cpu-minutes --plan"
    assert lines[-1] == f"next     {search} --data prepared:{tmp_path / 'out'}"
    assert open_dataset(lines[-1].split()[-1], resolution=32).info.num_classes == 2


@pytest.mark.slow
def test_the_program_prints_json(odd: Path, tmp_path: Path) -> None:
    done = program(f"folder:{odd}", "--out", tmp_path / "out", "--side", "50", "--workers", "1", "--json")
    said = json.loads(done.stdout)
    assert said["resolution"] == 48  # by the images
    assert said["side"] == 50
    assert said["num_images"] == {split: len(labels_N) for split, labels_N in FolderSource(str(odd)).labels.items()}
    assert said["num_duplicates"]["test"]["exact"] == 1
    assert said["images_per_second"] > 0


def test_help_has_examples_and_loads_nothing_heavy() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv[1:] = ['--help']\n"
        "try:\n    runpy.run_module('nas.prepare', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'timm', 'numpy', 'PIL', 'ray'} & set(sys.modules)))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m nas.prepare folder:/data/imagenet --resolution 160 --out /fast/imagenet-160" in said
    for option in ("--out", "--resolution", "--side", "--workers", "--bad-images", "--json"):
        assert re.search(rf"{option}\b", said)
    assert said.splitlines()[-1] == "[]"
