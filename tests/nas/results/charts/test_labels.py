"""Names beside the points of a chart."""

from nas.results.charts.labels import Box, place


def test_names_of_points_in_a_crowd_do_not_cover_each_other() -> None:
    points = [(200.0 + i, 150.0 + 12 * i) for i in range(8)]
    texts = [f"poolformer_s{i}" for i in range(8)]
    offsets = place(points, texts, size=(420, 380), keep_free=[])
    boxes = [Box(x + right, y + up, 6.2 * 13, 14) for (x, y), (right, up) in zip(points, offsets, strict=True)]
    assert all(first.overlap(second) == 0 for i, first in enumerate(boxes) for second in boxes[:i])
    assert all(box.outside(420, 380) == 0 for box in boxes)
