"""HPACK against python3-hpack: 10,000 header lists each way, the tables' bounds changing between them.

A story is one connection: what the table holds depends on all lists before. Our side is
hpack_stories.c; all it is asked goes in at once, and what it says is looked at afterwards.
"""
import random
import struct
import subprocess
from pathlib import Path

import hpack
import pytest
from gate import built

ROOT = Path(__file__).resolve().parents[2]
LISTS = 10_000
STORIES = 20
SEED = 7541

NAMES = """:authority :method :path :scheme :status accept accept-encoding accept-language age
    cache-control content-encoding content-length content-type cookie date etag host if-none-match
    last-modified link location referer server set-cookie strict-transport-security user-agent vary
    via x-forwarded-for x-own x-request-id priority sec-websocket-key traceparent te
    x-a-name-that-is-rather-longer-than-others""".split()
VALUES = ["", "/", "/index.html", "GET", "POST", "https", "200", "204", "404", "gzip, deflate",
          "gzip, deflate, br", "text/html; charset=utf-8", "no-cache", "max-age=3600", "bytes",
          "www.example.com", "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101",
          "Sun, 06 Nov 1994 08:49:37 GMT", "text/html,application/xhtml+xml,*/*;q=0.8"]
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-_=%/;, \"ABCXYZ\u00e9\u00ff"


def some_text(rng, longest):
    return "".join(rng.choices(ALPHABET, k=rng.randrange(longest)))


def value_of(rng):
    kind = rng.random()
    if kind < 0.7:
        return rng.choice(VALUES)
    return some_text(rng, 40 if kind < 0.98 else 1500 if kind < 0.999 else 6000)


def header_list(rng, common):
    """Most of it as it was before, as on a real connection."""
    fields = []
    for _ in range(rng.randrange(14)):
        if rng.random() < 0.6:
            fields.append(rng.choice(common))
        else:
            name = rng.choice(NAMES) if rng.random() < 0.95 else "x-" + str(rng.randrange(10**6))
            fields.append((name.encode(), value_of(rng).encode("latin-1")))
    return fields


def stories():
    rng = random.Random(SEED)
    for _ in range(STORIES):
        common = [(rng.choice(NAMES).encode(), value_of(rng).encode("latin-1")) for _ in range(25)]
        yield rng, [header_list(rng, common) for _ in range(LISTS // STORIES)]


def sizes(rng, largest):
    """New bounds of the table before a list, mostly none."""
    if rng.random() > 0.05:
        return []
    return [rng.choice([0, 31, 64, 200, 1000, rng.randrange(largest), largest])
            for _ in range(rng.randrange(1, 4))]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    library = built("build/gcc-debug/libanygate.a")
    out = tmp_path_factory.mktemp("hpack") / "hpack_stories"
    subprocess.run(["gcc", "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-I.", "-o", out,
                    "tests/integration/hpack_stories.c", library, "-luring", "-lxxhash", "-lcares",
                    "-pthread"], cwd=ROOT, check=True)

    def ask(requests):
        done = subprocess.run([out], input=b"".join(requests), capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ask


class Answers:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, count):
        self.at += count
        assert self.at <= len(self.data)
        return self.data[self.at - count:self.at]

    def number(self):
        return struct.unpack("=I", self.take(4))[0]

    def fields(self):
        count = self.number()
        assert count != 0xffffffff, "our decoder refused the section"
        fields = []
        for _ in range(count):
            name, value = self.number(), self.number()
            fields.append((self.take(name), self.take(value)))
        return fields


def test_ours_reads_what_theirs_writes(ours):
    lists, told, shrunk = 0, 0, 0
    for rng, story in stories():
        encoder = hpack.Encoder()
        requests = []
        for fields in story:
            for size in sizes(rng, 4096):
                if size != encoder.header_table_size:  # it would forget the changes before
                    encoder.header_table_size = size
                    shrunk += 1
            kinds = [hpack.NeverIndexedHeaderTuple if rng.random() < 0.1 else hpack.HeaderTuple
                     for _ in fields]
            section = encoder.encode([kind(*f) for kind, f in zip(kinds, fields)],
                                     huffman=rng.random() < 0.8)
            requests.append(b"D" + struct.pack("=I", len(section)) + section)
        answers = Answers(ours(requests))
        for fields in story:
            assert answers.fields() == fields
            lists, told = lists + 1, told + len(fields)
        assert answers.at == len(answers.data)
    assert lists == LISTS and told > 5 * LISTS and shrunk > LISTS / 20


def test_theirs_reads_what_ours_writes(ours):
    lists, indexed, plain = 0, 0, 0
    for rng, story in stories():
        decoder = hpack.Decoder(max_header_list_size=1 << 20)
        requests, bounds = [], []
        for fields in story:
            bounds.append(sizes(rng, 20000))
            requests += [b"S" + struct.pack("=I", size) for size in bounds[-1]]
            requests.append(b"E" + struct.pack("=I", len(fields)))
            for name, value in fields:
                requests.append(struct.pack("=BII", rng.choice([0, 0, 0, 1, 1, 2, 3]), len(name),
                                            len(value)) + name + value)
        answers = Answers(ours(requests))
        for fields, changes in zip(story, bounds):
            for size in changes:
                decoder.max_allowed_table_size = size  # what is in the table beyond is an error
            section = answers.take(answers.number())
            got = decoder.decode(section, raw=True)
            assert [tuple(f) for f in got] == fields
            lists, indexed = lists + 1, indexed + len(section)
            plain += sum(len(name) + len(value) + 2 for name, value in fields)
        assert answers.at == len(answers.data)
    assert lists == LISTS and indexed < plain * 0.7
