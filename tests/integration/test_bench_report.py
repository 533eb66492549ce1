"""The bench's report: figures and verdicts from a made-up run, plots within their bounds, parts that are missing."""
import copy
import re
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import figures  # noqa: E402
import plot  # noqa: E402
import report  # noqa: E402
import svg  # noqa: E402
import tables  # noqa: E402

META = {"date": "2026-11-30", "commit": "7c44191", "machine": "Intel Xeon at 2.1 GHz, 2 cores", "memory_gib": 24,
        "kernel": "6.18.5", "versions": {"nginx": "1.22.1", "haproxy": "2.6.12", "h2o": "2.2.5"}, "rounds": 3,
        "seconds": 1, "minutes": 14.2, "load_before": 0.1}
SERVERS = ("nginx", "nginx 16x32k", "haproxy", "h2o", "floor epoll", "floor io_uring", "anygate epoll",
           "anygate io_uring")


def costs(*us, **more):
    return {"us": list(us), "both_us": [2 * v for v in us], "busy": [0.99] * len(us),
            "rate": [1e6 / v for v in us], **more}


def case(name, group, goal, servers, title=None):
    return {"case": name, "title": title or name, "group": group, "goal": goal, "servers": servers,
            "command": f"wrk -t1 -c64 -d1s http://127.0.0.1:8080/{name}"}


def all_servers(base, *without):
    """Costs near `base`, each server's its own, in three rounds of which the middle one is the median."""
    shares = (1.2, 1.19, 1.27, 1.31, 1.0, 1.02, 1.06, 1.04)
    return {name: costs(base * s, base * s * 0.97, base * s * 1.05) for name, s in zip(SERVERS, shares)
            if name not in without}


def quantiles(base):
    return [[q, base * m] for q, m in ((0.5, 1), (0.9, 1.6), (0.99, 4.3), (0.999, 21), (0.9999, 55), (1, 90))]


def document():
    fixed = {"nginx": costs(5.4, 5.5, 5.9), "haproxy": costs(5.8, 5.7, 5.8), "h2o": costs(6.0, 6.1, 6.0),
             "floor epoll": costs(4.5, 4.6, 4.7), "floor io_uring": costs(4.8, 4.8, 4.8),
             "anygate epoll": costs(4.7, 4.9, 4.8, p50_us=[610, 620, 615], p99_us=[900, 950, 920]),
             "anygate io_uring": costs(5.2, 5.3, 5.1)}
    return {
        "meta": META,
        "cpu": [
            case("fixed", "HTTP/1.1", {"of": "floor", "ratio": 1.065, "text": "floor + 0.3 us of 4.6"}, fixed,
                 "h1 fixed, 2 bytes"),
            case("static64k", "HTTP/1.1", {"of": "best", "ratio": 0.9, "text": "0.9 of the best"},
                 all_servers(17, "haproxy"), "h1 static, 64 KB"),
            case("proxy1m", "HTTP/1.1", {"of": "floor", "ratio": 1.05}, all_servers(290), "h1 to h1 proxy, 1 MB"),
            case("h2-h2", "HTTP/2", {"of": "best", "ratio": 0.43},
                 {"haproxy": costs(3.5, 3.4, 3.6), "anygate epoll": costs(1.5, 1.45, 1.6)}, "h2 to h2 proxy"),
            case("tls-full", "TLS", None, all_servers(180, "h2o", "floor epoll", "floor io_uring"),
                 "full handshake, P-256"),
        ],
        "latency": [{"case": "fixed", "title": "h1 fixed, 2 bytes", "rate": rate, "share": share, "connections": 64,
                     "command": f"build/load -r {rate}",
                     "servers": {name: {"quantiles": quantiles(60 * share * (9 + i)), "sent": 40000, "failed": 0,
                                        "rate": rate - 0.4} for i, name in enumerate(SERVERS)}}
                    for rate, share in ((32000, 0.2), (128000, 0.8))],
        "memory": [{"kind": "h1", "title": "idle keep-alive h1", "connections": 10000,
                    "goal": {"of": "bytes", "bytes": 512, "text": "512 bytes"},
                    "servers": {"nginx": {"bytes": 1022, "kernel_bytes": 2310},
                                "haproxy": {"bytes": 1251, "kernel_bytes": 2290}, "h2o": {"bytes": 1243},
                                "anygate epoll": {"bytes": 592, "kernel_bytes": 2280},
                                "anygate io_uring": {"bytes": 649, "kernel_bytes": 2405}}},
                   {"kind": "tls", "title": "idle keep-alive h1 over TLS", "connections": 10000, "goal": None,
                    "servers": {"nginx": {"bytes": 18350, "kernel_bytes": 2310},
                                "anygate epoll": {"bytes": 6100, "kernel_bytes": 2280}}}],
        "shards": [{"case": "fixed", "title": "h1 fixed, 2 bytes",
                    "goal": {"of": "scale", "ratio": 1.9, "text": "1.9 times"},
                    "servers": {"anygate epoll": {"one_us": [4.8, 4.8, 4.8], "two_us": [5.2, 5.1, 5.0], "half_us": [5.0, 5.0, 5.0]},
                                "anygate io_uring": {"one_us": [5.0, 5.0, 5.0], "two_us": [5.0, 5.1, 5.05]}}}],
        "overload": [{"case": "fixed", "title": "twice the peak", "command": "build/load -r 400000",
                      "goal": {"of": "peak", "ratio": 0.9, "text": "keeps 0.9 of its peak"},
                      "servers": {"nginx": {"peak_rate": 170000, "offered_rate": 340000, "goodput_rate": 150000,
                                            "refused_rate": 0, "p50_us": 2100, "p99_us": 81000, "failed": 12},
                                  "anygate epoll": {"peak_rate": 200000, "offered_rate": 400000,
                                                    "goodput_rate": 190000, "refused_rate": 0, "p50_us": 900,
                                                    "p99_us": 4100, "failed": 0}}}],
    }


def rows(markdown, heading=None):
    """Cells of the rows of the table below a heading, emphasis taken off."""
    text = markdown.split(f"\n## {heading}\n")[1].split("\n## ")[0] if heading else markdown
    return [[c.strip().strip("*") for c in line.strip("|").split(" | ")]
            for line in text.splitlines() if line.startswith("| ")][1:]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return report.write(document(), tmp_path_factory.mktemp("reports"))


def test_name_of_the_report_and_links(written):
    assert written.name == "2026-11-30-6.18.5.md"
    links = re.findall(r"!\[[^]]+\]\(([^)]+\.svg)\)", written.read_text())
    assert len(links) == len(set(links)) == 6
    assert {written.parent / link for link in links} == set((written.parent / written.stem).iterdir())


def test_figures_of_a_case(written):
    table = rows(written.read_text(), "CPU per request: HTTP/1.1")
    assert [r[1] for r in table[:7]] == ["anygate epoll", "anygate io_uring", "nginx", "haproxy", "h2o",
                                         "floor epoll", "floor io_uring"]
    # median, least and most, 4.8 / 5.5, 4.8 / 4.6, twice the cost, busy, median rate, median percentiles
    assert table[0] == ["h1 fixed, 2 bytes", "anygate epoll", "4.80", "4.70 - 4.90", "0.87", "1.04", "9.60", "0.99",
                        "208,333", "615", "920"]
    assert table[2] == ["", "nginx", "5.50", "5.40 - 5.90", "1.00", "1.20", "11.0", "0.99", "181,818", "-", "-"]
    assert "- h1 fixed, 2 bytes: `wrk -t1 -c64 -d1s http://127.0.0.1:8080/fixed`" in written.read_text()


def test_rows_of_ours_alone_are_bold(written):
    text = written.read_text().split("## CPU per request: HTTP/1.1")[1]
    for line in text.splitlines():
        if line.startswith("| ") and " us" not in line:
            assert ("**" in line) == ("anygate" in line), line


def test_goals_and_verdicts(written):
    goals = {text or case: (round(figure, 3), bound, reached)
             for case, text, figure, bound, reached in report.goals(document())}
    assert goals == {
        "floor + 0.3 us of 4.6": (1.043, 1.065, True), "0.9 of the best": (0.874, 0.9, True),
        "h1 to h1 proxy, 1 MB": (1.04, 1.05, True), "h2 to h2 proxy": (0.429, 0.43, True),
        "512 bytes": (592, 512, False), "1.9 times": (1.98, 1.9, True), "keeps 0.9 of its peak": (0.95, 0.9, True)}
    table = rows(written.read_text(), "Goals")
    assert table[0] == ["h1 fixed, 2 bytes", "floor + 0.3 us of 4.6", "at most 1.065 x floor", "1.043",
                        "1.021 - 1.065", "4.80 epoll", "5.50 nginx", "4.60 epoll", "reached (within the spread)"]
    assert table[4][8] == "missed by 15.6 %"
    assert "**6 of 7 goals reached**. In 7 of 7 comparisons" in written.read_text()


@pytest.mark.parametrize("change, figure, reached, said", [
    ({"anygate epoll": costs(5.0, 5.1, 5.2)}, 5.1 / 4.6, False, "missed by 4.1 %"),
    ({"anygate epoll": costs(9, 9, 9)}, 5.2 / 4.6, False, "missed by 6.1 %"),  # io_uring decides
    ({"anygate io_uring": costs(4.6, 4.6, 4.6)}, 1.0, True, "reached"),
    ({"floor io_uring": costs(4.4, 4.4, 4.4)}, 4.8 / 4.4, False, "missed by 2.4 %"),  # the lower floor counts
    ({"anygate epoll": costs(4.7, 4.8, 5.1)}, 4.8 / 4.6, True, "reached (within the spread)"),
    ({"floor epoll": None, "floor io_uring": {"us": []}}, None, None, "not measured"),
    ({"anygate epoll": None, "anygate io_uring": None}, None, None, "not measured"),
])
def test_what_decides(change, figure, reached, said):
    made = document()
    servers = made["cpu"][0]["servers"]
    servers.update(change)
    made["cpu"][0]["servers"] = {name: got for name, got in servers.items() if got}
    goal = report.goals(made)[0]
    assert goal[2] == (pytest.approx(figure) if figure else None)
    assert goal[4] is reached
    assert rows(tables.goal_table(made))[0][8].replace("*", "") == said


def test_best_peer_is_the_best_of_all_peers():
    made = document()
    made["cpu"][1]["servers"]["h2o"] = costs(16, 16, 16)
    made["cpu"][1]["servers"]["nginx 16x32k"] = costs(15, 15, 15)
    case, _, figure, _, reached = report.goals(made)[1]
    assert (case, figure, reached) == ("h1 static, 64 KB", pytest.approx(17.68 / 15), False)
    assert "A peer is ahead in h1 static, 64 KB (nginx 16x32k: ours 1.18 of it)." in report.summary(made)


def test_latency_memory_shards_and_overload(written):
    text = written.read_text()
    latency = text.split("### h1 fixed, 2 bytes at 32,000 requests/s (20 % of the weakest peer's peak)")[1]
    assert "| server | p50, us | p90, us | p99, us | p99.9, us | p99.99, us | most, us |" in latency
    assert rows(latency)[2] == ["nginx", "108", "173", "464", "2,268", "5,940", "9,720", "32,000", "40,000", "0"]
    memory = rows(text, "Memory of an idle connection")
    assert memory[0] == ["idle keep-alive h1", "anygate epoll", "592", "0.58", "2,280", "10,000"]
    assert memory[4] == ["", "h2o", "1,243", "1.22", "-", "10,000"]
    assert rows(text, "Shards: one against two")[0] == ["h1 fixed, 2 bytes", "anygate epoll", "4.80", "5.10", "1.88",
                                                        "1.85 - 1.92", "1.92"]
    assert rows(text, "Shards: one against two")[1][-1] == "-"
    assert rows(text, "Overload") == [
        ["twice the peak", "anygate epoll", "200,000", "400,000", "190,000", "95 %", "0", "0", "900", "4,100", "-"],
        ["", "nginx", "170,000", "340,000", "150,000", "88.2 %", "0", "12", "2,100", "81,000", "-"]]


def test_headline():
    text = report.headline(document())
    assert text.splitlines()[0] == "| case | nginx | HAProxy | h2o | AnyGate | to the best peer | floor |"
    assert rows(text)[0] == ["h1 fixed, 2 bytes", "5.50", "5.80", "6.00", "4.80", "0.87", "4.60"]
    assert rows(text)[-1] == ["idle keep-alive h1 over TLS, bytes", "18,350", "-", "-", "6,100", "0.33", "-"]
    assert text.endswith("medians of 3 rounds; 2026-11-30, Intel Xeon at 2.1 GHz, 2 cores, Linux 6.18.5. "
                         "6 of 7 goals reached.\n")


def test_headline_has_at_most_twelve_rows_of_all_groups():
    made = document()
    made["cpu"][:0] = [case(f"more{i}", "HTTP/1.1", {"of": "best", "ratio": 1}, all_servers(9)) for i in range(20)]
    names = [r[0] for r in rows(report.headline(made))]
    assert len(names) == 12
    assert "h2 to h2 proxy" in names  # the goals of other groups before the twentieth of one
    assert "full handshake, P-256" not in names  # has no goal
    assert names[:8] == [f"more{i}" for i in range(8)]


def text_boxes(root):
    """(left, top, right, bottom, text) of each text, its width estimated from above."""
    for e in root.iter("{http://www.w3.org/2000/svg}text"):
        size = float(e.get("font-size"))
        width = svg.text_width(e.text, size, "font-weight" in e.attrib)
        left = float(e.get("x")) - {"start": 0, "middle": width / 2, "end": width}[e.get("text-anchor")]
        bottom = float(e.get("y"))
        yield left, bottom - size * 0.75, left + width, bottom + size * 0.2, e.text


def check_drawing(text):
    root = ElementTree.fromstring(text)
    width, height = float(root.get("width")), float(root.get("height"))
    assert width == 800
    boxes = list(text_boxes(root))
    assert boxes
    for left, top, right, bottom, words in boxes:
        assert 0 < left and right < width and 0 < top and bottom < height, words
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)
    for e in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(e.get("x")) + float(e.get("width")) < width and float(e.get("width")) >= 0
    for e in root.iter("{http://www.w3.org/2000/svg}polyline"):
        for point in e.get("points").split():
            x, y = map(float, point.split(","))
            assert 0 < x < width and 0 < y < height
    return root


def test_plots_keep_text_apart_and_within(written):
    for path in (written.parent / written.stem).glob("*.svg"):
        check_drawing(path.read_text())


@pytest.mark.parametrize("scale", [0.0123, 0.45, 1, 9.99, 1234, 999999])
def test_bars_of_any_size(scale):
    names = [s for s in SERVERS if not s.startswith("floor")]
    panels = [plot.Panel(f"a title that is much longer than all others there are, number {i}",
                         "us of server CPU per request",
                         [plot.Bar(n, scale * (1 + j), scale * (0.8 + j), scale * (1.3 + j), extra)
                          for j, n in enumerate(names[:i + 1])], line)
              for i, (extra, line) in enumerate([(None, None), (None, (scale * 40, "a long name of a line")),
                                                 (scale * 9, (scale / 9, "floor 1,234"))])]
    check_drawing(plot.bars("A title " * 12, "A line below it. " * 9, report.CPU_MARKS | report.MEMORY_MARKS, panels))


def test_one_colour_for_a_server_everywhere():
    assert len({plot.look(name)[0] for name in SERVERS}) == len(SERVERS)
    assert len({plot.look(name) for name in (*SERVERS, "some other")}) == len(SERVERS) + 1


@pytest.mark.parametrize("points", [
    [[0.5, 40], [0.9, 41], [0.99, 42]],                       # nearly flat: linear
    [[0.5, 1], [0.9, 70], [0.999999, 8e6]],                   # us to seconds: logarithmic
    [[0.0, 1], [0.5, 300], [0.75, 400], [0.9999, 500], [1.0, 1e7]],  # what is beyond the axis is left out
])
def test_curves_of_any_shape(points):
    root = check_drawing(plot.latency("Latency", "Lower is better.", {"anygate epoll": points, "envoy": points}))
    axis = min(float(e.get("points").split(",")[0]) for e in root.iter("{http://www.w3.org/2000/svg}polyline"))
    marks = [float(e.get("cx")) for e in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert min(marks) == axis and len(marks) == 1 + sum(0.5 <= q < 1 for q, _ in points)  # the legend has one
    labels = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert labels.index("50") < labels.index("90") < labels.index("99")


def test_curve_needs_two_points():
    assert plot.latency("Latency", "", {"nginx": [[0.5, 3], [1.0, 9]], "h2o": []}) is None


def test_missing_parts(tmp_path):
    text = report.write({"meta": {"date": "2026-11-30", "kernel": "6.18/5 x", "machine": "m"}}, tmp_path).read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["2026-11-30-6.18_5_x.md"]
    assert re.findall(r"^## (.*)", text, re.M) == ["How to read", "Machine"]
    assert report.headline({"meta": META}) == "" and report.goals({"meta": META}) == []


def test_each_part_may_be_empty_and_each_server_missing(tmp_path):
    for part in ("cpu", "latency", "memory", "shards", "overload"):
        made = document()
        made[part] = []
        report.write(made, tmp_path)
        for name in (*SERVERS, None):
            made = copy.deepcopy(document())
            for entry in made[part]:
                entry["servers"] = {n: ({} if n == name else got) for n, got in entry["servers"].items() if name}
            text = report.write(made, tmp_path).read_text()
            assert "None" not in text and "nan" not in text
            report.headline(made)


def test_plots_of_an_earlier_run_of_that_name_go(tmp_path):
    report.write(document(), tmp_path)
    path = report.write({**document(), "latency": []}, tmp_path)
    assert sorted(p.name for p in (tmp_path / path.stem).iterdir()) == [
        "cpu-http-1-1.svg", "cpu-http-2.svg", "cpu-tls.svg", "memory.svg"]


@pytest.mark.parametrize("value, text", [(0, "0"), (0.0456, "0.0456"), (0.456, "0.456"), (4.6, "4.60"), (46.26, "46.3"),
                                         (462.6, "463"), (4626, "4,626")])
def test_numbers(value, text):
    assert svg.number(value) == text


def test_ticks():
    assert svg.linear_ticks(23.4) == [0, 10, 20, 30]
    assert svg.linear_ticks(6.1) == [0, 2, 4, 6, 8]
    assert svg.log_ticks(300, 6000) == [200, 500, 1000, 2000, 5000, 10000]
    assert svg.log_ticks(100, 1000) == [100, 200, 500, 1000]
    assert svg.log_ticks(3, 9e6) == [1, 10, 100, 1000, 1e4, 1e5, 1e6, 1e7]
    assert [svg.duration(us) for us in (0.5, 20, 1000, 2500, 5e6)] == ["0.5 us", "20 us", "1 ms", "2.5 ms", "5 s"]


def test_rounds_that_do_not_pair_have_no_range():
    assert figures.ratio_range([1, 2], [1, 2, 3]) is None
    assert figures.ratio_range([1], [1]) is None
    assert figures.ratio_range([1, 3], [2, 2]) == (0.5, 1.5)
