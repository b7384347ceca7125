"""Names beside the points of a chart."""

from itertools import combinations

from nas.results.charts.labels import place

WIDTH, HEIGHT = 6.2 * 13, 14


def test_names_of_points_in_a_crowd_do_not_cover_each_other() -> None:
    points = [(200.0 + i, 150.0 + 12 * i) for i in range(8)]
    texts = [f"poolformer_s{i}" for i in range(8)]
    offsets = place(points, texts, size=(420, 380), keep_free=[])
    middles = [(x + right, y + up) for (x, y), (right, up) in zip(points, offsets, strict=True)]
    for first, second in combinations(middles, 2):
        assert abs(first[0] - second[0]) >= WIDTH or abs(first[1] - second[1]) >= HEIGHT
    for x, y in middles:
        assert WIDTH / 2 <= x <= 420 - WIDTH / 2
        assert HEIGHT / 2 <= y <= 380 - HEIGHT / 2


def test_a_name_leaves_other_points_free() -> None:
    crowd = [(205.0 + 6 * i, 150.0 + 14 * j) for i in range(15) for j in range(-2, 3)]
    [(right, up)] = place([(200.0, 150.0)], ["poolformer_s12"], size=(420, 380), keep_free=crowd)
    assert right < 0 or abs(up) > 2 * 14
