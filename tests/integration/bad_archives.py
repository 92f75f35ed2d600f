#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Package files that must be refused, and odd ones that must be accepted.

As a module: CASES is a dict name -> Case. As a program: bad_archives.py OUTDIR writes all
of them and an index.json that says what is expected of each.

Everything is the same in each run: no clock, no randomness without a seed.
"""

import bz2
import functools
import gzip
import io
import json
import lzma
import os
import random
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from typing import Callable, NamedTuple

REFUSED = "refused"
ACCEPTED = "accepted"


class Case(NamedTuple):
    """What one archive is for."""

    build: Callable[[str], None]  # writes the archive to the path
    expected: str  # REFUSED or ACCEPTED
    text: str  # REFUSED: part of the message, in lower case
    layer: str  # who must refuse: "archive"; "manifest": the rules that need all entries;
    #             "budget": the limits of the import
    warning: str  # part of the warning that must be given; "" for none
    suffix: str  # of the file name


CASES: dict[str, Case] = {}


def add(name, data, expected, text="", layer="archive", warning="", suffix="tar"):
    """Register @data, bytes or a function that makes them or a function(path)."""
    assert name not in CASES, name

    def build(path):
        content = data() if callable(data) else data
        with open(path, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                for piece in content:
                    file.write(piece)

    CASES[name] = Case(build, expected, text, layer, warning, suffix)


# --- tar by hand -------------------------------------------------------------------------

BLOCK = 512
END = bytes(2 * BLOCK)


def padded(data):
    return data + bytes(-len(data) % BLOCK)


def octal(value, width):
    return b"%0*o\0" % (width - 1, value)


def base256(value, width):
    return bytes([0x80]) + value.to_bytes(width - 1, "big")


def with_checksum(block):
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def header(name, kind=b"0", size=0, mode=0o644, link=b"", mtime=1700000000, prefix=b"",
           magic=b"ustar\x0000", size_field=None, mtime_field=None, rest=b"", device=(0, 0)):
    """One header block. @rest: what stands at offset 345 instead of the prefix."""
    block = name[:100].ljust(100, b"\0")
    block += octal(mode, 8) + octal(0, 8) + octal(0, 8)
    block += size_field or octal(size, 12)
    block += mtime_field or octal(mtime, 12)
    block += b" " * 8 + kind + link[:100].ljust(100, b"\0") + magic
    block += b"root".ljust(32, b"\0") * 2 + octal(device[0], 8) + octal(device[1], 8)
    block += rest or prefix.ljust(155, b"\0")
    return with_checksum(block.ljust(BLOCK, b"\0"))


def file(name, data=b"", **how):
    return header(name, size=len(data), **how) + padded(data)


def directory(name, **how):
    how.setdefault("mode", 0o755)
    return header(name, kind=b"5", **how)


def symlink(name, target):
    return header(name, kind=b"2", link=target, mode=0o777)


def hardlink(name, target, **how):
    return header(name, kind=b"1", link=target, **how)


def pax_record(key, value):
    size = len(key) + len(value) + 3
    while len(b"%d %s=%s\n" % (size, key, value)) != size:
        size += 1
    return b"%d %s=%s\n" % (size, key, value)


def pax(records, kind=b"x"):
    body = b"".join(pax_record(key, value) for key, value in records)
    return file(b"PaxHeaders/entry", body, kind=kind)


def gnu_long(kind, value):
    return file(b"././@LongLink", value + b"\0", kind=kind, magic=b"ustar  \0")


def tar(*entries):
    return b"".join(entries) + END


# --- compressors -------------------------------------------------------------------------


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


# Most archives are variations of a few: each of these is packed once.
@functools.cache
def gz(data):
    return gzip.compress(data, mtime=0)


@functools.cache
def xz(data):
    return lzma.compress(data)


def tool(*command, data):
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


@functools.cache
def zst(data):
    return tool("zstd", "-q", "-c", "--check", "-3", data=data)


COMPRESSORS = {"gz": gz, "bz2": bz2.compress, "xz": xz, "zst": zst}

SAMPLE_ENTRIES = [
    directory(b"bin/"),
    file(b"bin/run", b"#!/bin/sh\nexec true\n", mode=0o755),
    file(b"noise", noise(20000)),
    file(b"text", b"all work and no play\n" * 500),
    symlink(b"link", b"bin/run"),
    hardlink(b"hard", b"noise"),
    file(b"empty"),
]
SAMPLE = tar(*SAMPLE_ENTRIES)

for kind, compress in COMPRESSORS.items():
    add(f"good-{kind}", lambda c=compress: c(SAMPLE), ACCEPTED, suffix=f"tar.{kind}")
add("good-tar", SAMPLE, ACCEPTED)
add("good-tar-padded-to-a-record", SAMPLE + bytes(-len(SAMPLE) % 10240), ACCEPTED)
add("good-tar-without-entries", bytes(10240), ACCEPTED)

# --- names -------------------------------------------------------------------------------

LONG = b"/".join([b"d" * 250] * 17)  # 4266 bytes


def refused_name(name, path, text):
    raw = path if isinstance(path, bytes) else path.encode()
    if len(raw) <= 100:
        add(f"name-{name}", tar(file(b"fine"), file(raw, b"x")), REFUSED, text)
    add(f"name-{name}-pax", tar(file(b"fine"), pax([(b"path", raw)]) + file(b"x", b"x")),
        REFUSED, text)


for _name, _path, _text in [
    ("dotdot", b"../x", "'..'"),
    ("dotdot-inside", b"a/../../x", "'..'"),
    ("dotdot-last", b"a/..", "'..'"),
    ("dot-slash-dotdot", b"./../x", "'..'"),
    ("absolute", b"/abs", "absolute"),
    ("double-slash-start", b"//abs", "absolute"),
    ("dot-slash-slash", b".//abs", "empty component"),
    ("empty-component", b"a//b", "empty component"),
    ("inner-dot", b"a/./b", "'.'"),
    ("two-dots-slash", b"././b", "'.'"),
    ("last-dot", b"a/.", "'.'"),
    ("newline", b"a\nb", "control character"),
    ("escape", b"a\x1b[2Jb", "control character"),
    ("delete", b"a\x7fb", "control character"),
    ("c1", "a\u0085b", "control character"),
    ("latin1", b"caf\xe9", "utf-8"),
    ("overlong", b"a\xc0\xafb", "utf-8"),
    ("surrogate", b"a\xed\xa0\x80b", "utf-8"),
    ("beyond-unicode", b"a\xf4\x90\x80\x80b", "utf-8"),
    ("cut-utf8", b"a\xe2\x82", "utf-8"),
    ("long-component", b"d/" + b"n" * 256, "255 bytes"),
    ("long", LONG, "4095 bytes"),
    ("30000-levels", b"d/" * 30000 + b"x", "4095 bytes"),
]:
    refused_name(_name, _path, _text)
add("name-empty", tar(file(b"fine"), file(b"", b"x")), REFUSED, "empty")
add("name-empty-directory", tar(directory(b"")), REFUSED, "empty")
add("name-root-is-a-file", tar(file(b".", b"x")), REFUSED, "'.'")
add("name-root-is-a-symlink", tar(symlink(b".", b"/etc")), REFUSED, "'.'")
add("name-nul-in-pax", tar(pax([(b"path", b"a\0/../../x")]) + file(b"x")), REFUSED, "nul")
add("name-long-gnu", tar(gnu_long(b"L", LONG) + file(b"x", magic=b"ustar  \0")), REFUSED,
    "4095 bytes")
add("name-dotdot-gnu", tar(gnu_long(b"L", b"../" + b"y" * 120) +
                           file(b"x", magic=b"ustar  \0")), REFUSED, "'..'")
add("name-dotdot-by-prefix", tar(file(b"x", b"x", prefix=b"a/..")), REFUSED, "'..'")
add("name-4095-bytes", tar(pax([(b"path", b"/".join([b"e" * 255] * 16))]) + file(b"x")),
    ACCEPTED)
add("name-with-dot-slash", tar(directory(b"./"), directory(b"./a/"), file(b"./a/b", b"x")),
    ACCEPTED)
add("name-root-dot", tar(directory(b"."), file(b"./b", b"x")), ACCEPTED)
add("name-backslash-and-space", tar(file(b"a\\b c", b"x")), ACCEPTED)

SCRIPTS = ["größe", "Ελλάδα", "Привет", "日本語", "العربية", "עברית", "ไทย", "한국어", "हिन्दी",
           "emoji-🚀", "nfc-\u00e9", "nfd-e\u0301"]
add("names-in-many-scripts",
    tar(*[file(n.encode(), n.encode()) for n in SCRIPTS]), ACCEPTED)
add("names-in-many-scripts-pax",
    tar(*[pax([(b"path", n.encode())]) + file(b"x", n.encode()) for n in SCRIPTS]), ACCEPTED)
add("link-names-in-many-scripts-pax",
    tar(*[pax([(b"linkpath", n.encode())]) + symlink(b"l%d" % i, b"x")
          for i, n in enumerate(SCRIPTS)]), ACCEPTED)

# --- links -------------------------------------------------------------------------------

add("file-through-symlink", tar(symlink(b"d", b"/tmp"), file(b"d/x", b"x")), REFUSED,
    "'d", layer="manifest")
add("file-below-a-file", tar(file(b"d", b"y"), file(b"d/x", b"x")), REFUSED, "'d",
    layer="manifest")
add("hard-link-forward", tar(hardlink(b"h", b"f"), file(b"f", b"x")), REFUSED, "'h'",
    layer="manifest")
add("hard-link-nowhere", tar(hardlink(b"h", b"missing")), REFUSED, "'h'", layer="manifest")
add("hard-link-to-itself", tar(hardlink(b"h", b"h")), REFUSED, "'h'", layer="manifest")
add("hard-link-to-a-symlink", tar(symlink(b"s", b"x"), hardlink(b"h", b"s")), REFUSED,
    "'h'", layer="manifest")
add("hard-link-to-a-directory", tar(directory(b"d/"), hardlink(b"h", b"d")), REFUSED,
    "'h'", layer="manifest")
add("hard-link-out", tar(hardlink(b"h", b"../../etc/passwd")), REFUSED, "'..'")
add("hard-link-absolute", tar(hardlink(b"h", b"/etc/passwd")), REFUSED, "absolute")
add("hard-link-empty", tar(hardlink(b"h", b"")), REFUSED, "'h'")
add("hard-link-with-data", tar(file(b"f", b"x"), header(b"h", kind=b"1", link=b"f", size=3) +
                               padded(b"abc")), REFUSED, "with data")
add("hard-link-with-data-pax",
    tar(file(b"f", b"x"), pax([(b"size", b"3")]) + header(b"h", kind=b"1", link=b"f") +
        padded(b"abc")), REFUSED, "with data")
add("symlink-with-data", tar(header(b"s", kind=b"2", link=b"f", size=3) + padded(b"abc")),
    REFUSED, "with data")
add("directory-with-data", tar(header(b"d/", kind=b"5", size=3) + padded(b"abc")), REFUSED,
    "with data")
add("hard-link-good", tar(file(b"f", b"x"), hardlink(b"h", b"./f")), ACCEPTED)
add("symlink-empty", tar(symlink(b"s", b"")), REFUSED, "'s'")
add("symlink-control-character", tar(symlink(b"s", b"a\nb")), REFUSED, "control character")
add("symlink-latin1", tar(symlink(b"s", b"caf\xe9")), REFUSED, "utf-8")
add("symlink-too-long", tar(pax([(b"linkpath", b"t" * 5000)]) + symlink(b"s", b"t")),
    REFUSED, "4095 bytes")
for _name, _target in [("absolute", b"/etc/passwd"), ("escaping", b"../../../etc/passwd"),
                       ("to-itself", b"s"), ("root", b"/"), ("dot", b".")]:
    add(f"symlink-{_name}", tar(symlink(b"s", _target)), ACCEPTED)
add("symlink-loop", tar(symlink(b"a", b"b"), symlink(b"b", b"a")), ACCEPTED)

# --- types and what is stripped ----------------------------------------------------------

add("character-device", tar(header(b"dev/null", kind=b"3", device=(1, 3))), REFUSED,
    "'dev/null' is a character device")
add("block-device", tar(header(b"dev/sda", kind=b"4", device=(8, 0))), REFUSED,
    "'dev/sda' is a block device")
add("fifo", tar(header(b"pipe", kind=b"6")), REFUSED, "'pipe' is a fifo")
for _kind, _text in [(b"D", "incremental"), (b"M", "volume"), (b"N", "long-name"),
                     (b"V", "volume"), (b"Z", "unknown type: type 'z'")]:
    add(f"type-{_kind.decode()}", tar(header(b"odd", kind=_kind, magic=b"ustar  \0"),
                                      file(b"f")), REFUSED, _text)
add("type-contiguous", tar(file(b"f", b"x", kind=b"7")), ACCEPTED)
add("type-nul", tar(file(b"f", b"x", kind=b"\0")), ACCEPTED)
add("v7", tar(header(b"d/", kind=b"\0", magic=bytes(8)), file(b"d/f", b"x", kind=b"\0",
                                                             magic=bytes(8))), ACCEPTED)
add("file-name-with-slash-and-data", tar(file(b"d/", b"x")), REFUSED, "with data")
add("setuid", tar(file(b"bin/ping", b"x", mode=0o4755), file(b"b", b"x", mode=0o2755),
                  file(b"c", b"x", mode=0o6711)), ACCEPTED,
    warning="set-uid or set-gid bits were removed from 3 entries, 'bin/ping' first")
add("sticky", tar(directory(b"tmp/", mode=0o1777)), ACCEPTED, warning="sticky")
add("xattr", tar(pax([(b"SCHILY.xattr.user.note", b"hello")]) + file(b"f", b"x")), ACCEPTED,
    warning="extended attributes were removed from 1 entry, 'f' first")
add("capability", tar(pax([(b"SCHILY.xattr.security.capability",
                            bytes.fromhex("0100000200200000000000000000000000000000"))]) +
                      file(b"bin/ping", b"x")), ACCEPTED,
    warning="capabilities were removed from 1 entry, 'bin/ping' first")
add("acl", tar(pax([(b"SCHILY.acl.access",
                     b"user::rw-\nuser:lp:r--:7\ngroup::r--\nmask::r--\nother::r--\n")]) +
               file(b"f", b"x")), ACCEPTED,
    warning="access control lists were removed from 1 entry, 'f' first")

# --- several entries of one name ---------------------------------------------------------

add("same-name-twice", tar(file(b"f", b"x"), file(b"f", b"y")), REFUSED, "'f'",
    layer="manifest")
add("same-name-with-dot-slash", tar(file(b"f", b"x"), file(b"./f", b"y")), REFUSED, "'f'",
    layer="manifest")
add("same-directory-twice", tar(directory(b"d/"), directory(b"d/", mode=0o700)), REFUSED,
    "'d'", layer="manifest")
add("file-and-directory", tar(file(b"n", b"x"), directory(b"n/")), REFUSED, "'n'",
    layer="manifest")
add("case-only", tar(file(b"Readme", b"x"), file(b"README", b"y")), ACCEPTED,
    layer="manifest", warning="case")

# --- damage ------------------------------------------------------------------------------


def flipped(data, offset):
    return data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1:]


def flip_case(kind, compress, percent):
    def make():
        data = compress(SAMPLE)
        return flipped(data, min(len(data) * percent // 100, len(data) - 1))

    add(f"flip-{kind}-{percent}", make, REFUSED, "damaged", suffix=f"tar.{kind}")


for kind, compress in COMPRESSORS.items():
    for percent in (20, 40, 60, 80):
        flip_case(kind, compress, percent)
    for percent in (1, 25, 50, 75, 99):
        add(f"cut-{kind}-{percent}",
            lambda c=compress, p=percent: (lambda d: d[:max(len(d) * p // 100, 8)])(c(SAMPLE)),
            REFUSED, "cut off", suffix=f"tar.{kind}")
    for less in (1, 2, 4, 8):
        add(f"cut-{kind}-minus-{less}", lambda c=compress, n=less: c(SAMPLE)[:-n], REFUSED,
            "cut off", suffix=f"tar.{kind}")
    for what, tail in (("zeros", bytes(7)), ("text", b"garbage"), ("tar", SAMPLE),
                       ("one-byte", b"\x1f")):
        add(f"trailing-{what}-{kind}", lambda c=compress, t=tail: c(SAMPLE) + t, REFUSED,
            "after the end of the", suffix=f"tar.{kind}")
    add(f"members-{kind}",
        lambda c=compress: c(SAMPLE[:5000]) + c(b"") + c(SAMPLE[5000:]), ACCEPTED,
        suffix=f"tar.{kind}")
    add(f"members-cut-{kind}",
        lambda c=compress: c(SAMPLE[:5000]) + c(SAMPLE[5000:])[:-9], REFUSED, "cut off",
        suffix=f"tar.{kind}")
    add(f"not-a-tar-{kind}", lambda c=compress: c(b"hello, world\n" * 100), REFUSED,
        "not a package format", suffix=f"tar.{kind}")
    add(f"empty-{kind}", lambda c=compress: c(b""), REFUSED, "not a package format",
        suffix=f"tar.{kind}")

add("flip-gz-crc", lambda: flipped(gz(SAMPLE), len(gz(SAMPLE)) - 8), REFUSED, "damaged",
    suffix="tar.gz")
add("flip-gz-length", lambda: flipped(gz(SAMPLE), len(gz(SAMPLE)) - 1), REFUSED, "damaged",
    suffix="tar.gz")
add("flip-tar-header", flipped(SAMPLE, 512 + 10), REFUSED, "damaged")
add("flip-tar-size", flipped(SAMPLE, 512 + 130), REFUSED, "damaged")


def boundaries():
    offset = 0
    for entry in SAMPLE_ENTRIES:
        offset += len(entry)
        yield offset


for number, offset in enumerate(boundaries()):
    add(f"cut-tar-boundary-{number}", SAMPLE[:offset], REFUSED, "cut off")
    for kind, compress in COMPRESSORS.items():
        add(f"cut-tar-boundary-{number}-{kind}",
            lambda c=compress, n=offset: c(SAMPLE[:n]), REFUSED, "cut off",
            suffix=f"tar.{kind}")
add("cut-tar-one-zero-block", SAMPLE[:-BLOCK], REFUSED, "cut off")
add("cut-tar-half-a-zero-block", SAMPLE[:-BLOCK // 2], REFUSED, "cut off")
add("cut-tar-in-header", SAMPLE[:600], REFUSED, "cut off")
add("cut-tar-in-data", SAMPLE[:10000], REFUSED, "cut off")
add("cut-tar-after-pax-header", pax([(b"path", b"a")]), REFUSED, "cut off")
add("cut-tar-after-long-name", gnu_long(b"L", b"n" * 120) + END, REFUSED, "'")
add("tail-data", SAMPLE + b"surprise", REFUSED, "after the end")
add("tail-data-behind-zeros", SAMPLE + bytes(100000) + b"\1", REFUSED, "after the end")
add("tail-second-tar", SAMPLE + tar(file(b"hidden", b"x")), REFUSED, "after the end")
add("tail-data-gz", lambda: gz(SAMPLE + b"surprise"), REFUSED, "after the end",
    suffix="tar.gz")
add("tail-zeros", SAMPLE + bytes(20480), ACCEPTED)
add("lone-zero-block", b"".join(SAMPLE_ENTRIES[:2]) + bytes(BLOCK) +
    b"".join(SAMPLE_ENTRIES[2:]) + END, REFUSED, "after the end")
add("pax-damaged", tar(file(b"x", b"99 path=short\n", kind=b"x") + file(b"f")), REFUSED,
    "damaged")
add("pax-not-a-number", tar(file(b"x", b"zz path=short\n", kind=b"x") + file(b"f")), REFUSED,
    "damaged")
add("pax-twice", tar(pax([(b"path", b"a")]) + pax([(b"path", b"b")]) + file(b"f")), REFUSED,
    "damaged")
add("pax-too-large", lambda: tar(file(b"x", bytes(2 << 20), kind=b"x") + file(b"f")),
    REFUSED, "too large")
add("pax-global-comment", tar(pax([(b"comment", b"0123456789abcdef")], kind=b"g"),
                              file(b"f", b"x")), ACCEPTED)
add("pax-global-path", tar(pax([(b"path", b"g")], kind=b"g"), file(b"f", b"x")), REFUSED,
    "global")
add("many-special-headers", tar(*[pax([(b"comment", b"c")], kind=b"g")] * 100, file(b"f")),
    REFUSED, "special headers")
add("size-negative", tar(header(b"f", size_field=b"\xff" * 11 + b"\xf0")), REFUSED, "damaged")
add("size-not-a-number", tar(header(b"f", size_field=b"12 garbage!\0")), REFUSED, "damaged")

# --- sparse files and sizes --------------------------------------------------------------


def gnu_sparse_old(name, pieces, realsize, data):
    """GNU tar --format=gnu --sparse: up to four pieces in the header, then 21 a block."""
    area = b"".join(octal(o, 12) + octal(n, 12) for o, n in pieces[:4]).ljust(96, b"\0")
    more = pieces[4:]
    rest = bytes(41) + area + (b"\1" if more else b"\0")
    rest += octal(realsize, 12) if realsize < 8 ** 11 else base256(realsize, 12)
    blocks = header(name, kind=b"S", size=len(data), magic=b"ustar  \0", rest=rest)
    while more:
        part, more = more[:21], more[21:]
        area = b"".join(octal(o, 12) + octal(n, 12) for o, n in part).ljust(504, b"\0")
        blocks += (area + (b"\1" if more else b"\0")).ljust(BLOCK, b"\0")
    return blocks + padded(data)


def gnu_sparse_1_0(name, pieces, realsize, data):
    table = b"%d\n" % len(pieces) + b"".join(b"%d\n%d\n" % p for p in pieces)
    return pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.name", name), (b"GNU.sparse.realsize", b"%d" % realsize)]) + \
        file(b"GNUSparseFile.0/" + name, padded(table) + data)


def gnu_sparse_0_1(name, pieces, realsize, data):
    table = b",".join(b"%d,%d" % p for p in pieces)
    return pax([(b"GNU.sparse.size", b"%d" % realsize),
                (b"GNU.sparse.numblocks", b"%d" % len(pieces)),
                (b"GNU.sparse.map", table), (b"GNU.sparse.name", name)]) + file(name, data)


HOLES = [(4096 * 2 * i, 512) for i in range(30)] + [(300000, 0)]
HOLES_DATA = noise(30 * 512)
TERABYTE = 1 << 40
add("sparse-gnu-old", tar(gnu_sparse_old(b"s", HOLES, 300000, HOLES_DATA), file(b"f", b"x")),
    ACCEPTED)
add("sparse-gnu-1.0", tar(gnu_sparse_1_0(b"s", HOLES, 300000, HOLES_DATA), file(b"f", b"x")),
    ACCEPTED)
add("sparse-gnu-0.1", tar(gnu_sparse_0_1(b"s", HOLES, 300000, HOLES_DATA), file(b"f", b"x")),
    ACCEPTED)
add("sparse-map-beyond-the-data",
    tar(gnu_sparse_old(b"s", [(0, 512), (4096, 5120)], 300000, noise(1024))), REFUSED,
    "sparse")
add("sparse-map-shorter-than-the-data",
    tar(gnu_sparse_old(b"s", [(0, 512)], 300000, noise(1024)), file(b"f")), REFUSED,
    "'s' has a damaged sparse map")
add("sparse-map-beyond-the-size",
    tar(gnu_sparse_old(b"s", [(0, 512), (400000, 512)], 300000, noise(1024))), REFUSED,
    "sparse")
add("sparse-map-backwards",
    tar(gnu_sparse_old(b"s", [(8192, 512), (0, 512)], 300000, noise(1024))), REFUSED,
    "sparse")
add("sparse-map-overlapping",
    tar(gnu_sparse_old(b"s", [(0, 512), (256, 512)], 300000, noise(1024))), REFUSED,
    "sparse")
add("bomb-terabyte-hole",
    tar(gnu_sparse_old(b"hole", [(TERABYTE, 0)], TERABYTE, b""), file(b"f", b"x")), ACCEPTED,
    layer="budget")
add("bomb-terabyte-hole-1.0",
    tar(gnu_sparse_1_0(b"hole", [(TERABYTE - 512, 512)], TERABYTE, noise(512))), ACCEPTED,
    layer="budget")
add("sparse-map-of-millions-of-pieces",
    lambda: gz(tar(gnu_sparse_1_0(b"s", [(0, 0)] * 2200000, 1, b""))), REFUSED, "too large",
    suffix="tar.gz")
add("size-base-256-cut", header(b"f", size_field=base256(9 << 30, 12)) + END, REFUSED,
    "cut off")
add("size-pax-cut", pax([(b"size", b"%d" % (9 << 30))]) + header(b"f") + END, REFUSED,
    "cut off")
add("size-pax", tar(pax([(b"size", b"1000")]) + header(b"f") + padded(noise(1000)),
                    file(b"g", b"x")), ACCEPTED)
add("size-base-256", tar(header(b"f", size_field=base256(1000, 12)) + padded(noise(1000)),
                         file(b"g", b"x")), ACCEPTED)
add("mtime-odd", tar(file(b"old", mtime_field=b"\xff" * 11 + b"\xf0"),
                     pax([(b"mtime", b"1700000000.123456789")]) + file(b"fine"),
                     pax([(b"mtime", b"-1.5")]) + file(b"before"),
                     pax([(b"mtime", b"99999999999")]) + file(b"far")), ACCEPTED)

# --- bombs -------------------------------------------------------------------------------


def zeros_tar(size):
    """A tar with one file of @size zeros, piece by piece."""
    yield header(b"zeros", size_field=base256(size, 12))
    piece = bytes(1 << 20)
    for _ in range(size >> 20):
        yield piece
    yield END


def zeros_zst(size):
    """@size zeros in kilobytes."""
    process = subprocess.Popen(["zstd", "-q", "-c", "--check"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    out = []
    import threading

    reader = threading.Thread(target=lambda: out.append(process.stdout.read()))
    reader.start()
    for piece in zeros_tar(size):
        process.stdin.write(piece)
    process.stdin.close()
    reader.join()
    if process.wait() != 0:
        raise RuntimeError("zstd failed")
    return out[0]


def zeros_gz(size):
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    for piece in zeros_tar(size):
        yield compressor.compress(piece)
    yield compressor.flush()


def many_empty_files(count):
    """@count empty files as .tar.gz, piece by piece."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    for number in range(count):
        yield compressor.compress(header(b"d%d/f%d" % (number // 1000, number)))
    yield compressor.compress(END)
    yield compressor.flush()


BOMB_SIZE = int(os.environ.get("BOMB_SIZE", 1 << 30))
BOMB_COUNT = int(os.environ.get("BOMB_COUNT", 100000))
add("bomb-zeros-zst", lambda: zeros_zst(BOMB_SIZE), ACCEPTED, layer="budget",
    suffix="tar.zst")
add("bomb-zeros-gz", lambda: zeros_gz(BOMB_SIZE), ACCEPTED, layer="budget", suffix="tar.gz")
add("bomb-empty-files", lambda: many_empty_files(BOMB_COUNT), ACCEPTED, layer="budget",
    suffix="tar.gz")
add("bomb-zeros-after-the-end", lambda: gz(SAMPLE + bytes(65 << 20)), REFUSED,
    "after the end", suffix="tar.gz")


def wide_window():
    """Needs a window of 2 GiB to be unpacked; a few kilobytes, as the data are zeros."""
    return tool("zstd", "-q", "-c", "--ultra", "--long=31", "-1", data=SAMPLE)


def wide_frame():
    """The same by hand: a frame header that asks for 2 GiB, then one empty last block."""
    return struct.pack("<IBB", 0xFD2FB528, 0x00, (31 - 10) << 3) + b"\1\0\0"


add("zstd-window-2-gib-tool", wide_window, REFUSED, "128 mib", suffix="tar.zst")
add("zstd-window-2-gib", wide_frame, REFUSED, "128 mib", suffix="tar.zst")
add("zstd-skippable-frames",
    lambda: struct.pack("<II", 0x184D2A50, 5) + b"hello" + zst(SAMPLE) +
    struct.pack("<II", 0x184D2A5F, 3) + b"end", ACCEPTED, suffix="tar.zst")
add("zstd-without-checksum", lambda: tool("zstd", "-q", "-c", "--no-check", data=SAMPLE),
    ACCEPTED, suffix="tar.zst")


def xz_wide():
    """A dictionary of 1.5 GiB in the header, which is what a decoder must allocate."""
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 4096}]
    data = bytearray(lzma.compress(SAMPLE, filters=filters))
    size = (data[12] + 1) * 4
    place = data.index(b"\x21\x01", 12, 12 + size) + 2
    data[place] = 39
    data[12 + size - 4:12 + size] = struct.pack("<I", zlib.crc32(data[12:12 + size - 4]))
    return bytes(data)


add("xz-dictionary-3-gib", xz_wide, REFUSED, "256 mib", suffix="tar.xz")
add("xz-padding", lambda: xz(SAMPLE) + bytes(8), ACCEPTED, suffix="tar.xz")
add("xz-padding-odd", lambda: xz(SAMPLE) + bytes(6), REFUSED, "after the end of the",
    suffix="tar.xz")
add("xz-crc32", lambda: lzma.compress(SAMPLE, check=lzma.CHECK_CRC32), ACCEPTED,
    suffix="tar.xz")

# --- zip ---------------------------------------------------------------------------------


def zip_of(entries, method=zipfile.ZIP_DEFLATED):
    """@entries: (name, data, mode); a mode of 0 leaves what Python writes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data, mode in entries:
            info = zipfile.ZipInfo(name, (2024, 1, 2, 3, 4, 6))
            info.compress_type = method
            info.external_attr = (mode or 0o100644) << 16
            archive.writestr(info, data)
    return out.getvalue()


ZIP_ENTRIES = [("bin/", b"", stat.S_IFDIR | 0o755), ("bin/run", b"#!/bin/sh\n", 0o100755),
               ("noise", noise(20000), 0), ("text", b"all work and no play\n" * 500, 0),
               ("link", b"bin/run", stat.S_IFLNK | 0o777), ("empty", b"", 0)]
ZIP = zip_of(ZIP_ENTRIES)
ZIP_STORED = zip_of(ZIP_ENTRIES, zipfile.ZIP_STORED)
CENTRAL = b"PK\1\2"
LOCAL = b"PK\3\4"
EOCD = b"PK\5\6"


def patched(data, offset, value):
    return data[:offset] + value + data[offset + len(value):]


def nth(data, what, number):
    offset = -1
    for _ in range(number + 1):
        offset = data.index(what, offset + 1)
    return offset


def streamed_zip():
    """Written to a pipe: sizes and CRC stand behind the data."""

    class Pipe(io.RawIOBase):
        def __init__(self):
            super().__init__()
            self.data = bytearray()

        def writable(self):
            return True

        def write(self, data):
            self.data += data
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, mode in ZIP_ENTRIES:
            info = zipfile.ZipInfo(name, (2024, 1, 2, 3, 4, 6))
            info.external_attr = (mode or 0o100644) << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return bytes(pipe.data)


def zip64():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, mode in ZIP_ENTRIES:
            info = zipfile.ZipInfo(name, (2024, 1, 2, 3, 4, 6))
            info.external_attr = (mode or 0o100644) << 16
            with archive.open(info, "w", force_zip64=True) as entry:
                entry.write(data)
    return out.getvalue()


def zip_with_prefix():
    out = io.BytesIO(b"#!/bin/sh\nexit 0\n")
    out.seek(0, io.SEEK_END)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("f", b"x")
    return out.getvalue()


def zip_moved(gap):
    """The same with @gap put in front of the first local header, offsets right."""
    directory_at = struct.unpack_from("<I", ZIP_STORED, ZIP_STORED.rindex(EOCD) + 16)[0]
    data = bytearray(gap + ZIP_STORED)
    at = directory_at + len(gap)
    while data[at:at + 4] == CENTRAL:
        name, extra, comment = struct.unpack_from("<HHH", data, at + 28)
        offset = struct.unpack_from("<I", data, at + 42)[0]
        struct.pack_into("<I", data, at + 42, offset + len(gap))
        at += 46 + name + extra + comment
    struct.pack_into("<I", data, at + 16, directory_at + len(gap))
    return bytes(data)


def zip_hidden_entry():
    """A local entry that the central directory does not name."""
    hidden = zip_of([("hidden", b"surprise", 0)], zipfile.ZIP_STORED)
    return zip_moved(hidden[:hidden.index(CENTRAL)])


def zip_overlap():
    """Two central entries share one local entry."""
    data = bytearray(zip_of([("aa", b"x" * 100, 0), ("bb", b"x" * 100, 0)]))
    second = nth(data, CENTRAL, 1)
    first_offset = struct.unpack_from("<I", data, nth(data, CENTRAL, 0) + 42)[0]
    struct.pack_into("<I", data, second + 42, first_offset)
    data[second + 46:second + 48] = b"aa"
    return bytes(data)


def zip_shorter_directory():
    """The directory lacks its last entry."""
    data = bytearray(ZIP_STORED)
    last = nth(data, CENTRAL, len(ZIP_ENTRIES) - 1)
    end = data.rindex(EOCD)
    start = struct.unpack_from("<I", data, end + 16)[0]
    count = len(ZIP_ENTRIES) - 1
    tail = bytearray(data[end:])
    struct.pack_into("<HHI", tail, 8, count, count, last - start)
    return bytes(data[:last] + tail)


def both_flags(data, number, bits):
    """Set @bits in the flags of the local and the central header of entry @number."""
    data = bytearray(data)
    for what, field in ((LOCAL, 6), (CENTRAL, 8)):
        at = nth(data, what, number) + field
        struct.pack_into("<H", data, at, struct.unpack_from("<H", data, at)[0] | bits)
    return bytes(data)


def both_method(data, number, method):
    data = bytearray(data)
    for what, field in ((LOCAL, 8), (CENTRAL, 10)):
        struct.pack_into("<H", data, nth(data, what, number) + field, method)
    return bytes(data)


def refused_zip(name, data, text):
    add(f"zip-{name}", data, REFUSED, text, suffix="zip")


def accepted_zip(name, data, **how):
    add(f"zip-{name}", data, ACCEPTED, suffix="zip", **how)


accepted_zip("good", ZIP)
accepted_zip("good-stored", ZIP_STORED)
accepted_zip("good-streamed", streamed_zip)
accepted_zip("good-zip64", zip64)
accepted_zip("empty", zip_of([]))
accepted_zip("comment", ZIP[:-2] + struct.pack("<H", 5) + b"hello")
accepted_zip("names-in-many-scripts", zip_of([(n, n.encode(), 0) for n in SCRIPTS]))
accepted_zip("setuid", zip_of([("bin/su", b"x", 0o104755)]),
             warning="set-uid or set-gid bits were removed from 1 entry, 'bin/su' first")
accepted_zip("symlink-deflated", zip_of([("l", b"a/" * 200 + b"b", stat.S_IFLNK | 0o777)]))
accepted_zip("symlink-nfd", zip_of([("l", "e\u0301".encode(), stat.S_IFLNK | 0o777),
                                    ("e\u0301", b"x", 0)]))
refused_zip("dotdot", zip_of([("../x", b"x", 0)]), "'..'")
refused_zip("absolute", zip_of([("/x", b"x", 0)]), "absolute")
refused_zip("empty-name", zip_of([("", b"x", 0)]), "empty")
refused_zip("latin1-name", zip_of([("cafX", b"x", 0)]).replace(b"cafX", b"caf\xe9"), "utf-8")
refused_zip("nul-in-name", zip_of([("caXX", b"x", 0)]).replace(b"caXX", b"ca\0X"), "nul")
refused_zip("device", zip_of([("dev", b"", stat.S_IFCHR | 0o600)]), "device")
refused_zip("socket", zip_of([("sock", b"", stat.S_IFSOCK | 0o600)]), "socket")
# Info-ZIP marks what it read from a pipe as one; libarchive makes a file of it.
accepted_zip("fifo", zip_of([("pipe", b"x", stat.S_IFIFO | 0o600)]))
refused_zip("directory-with-data", zip_of([("d/", b"data", stat.S_IFDIR | 0o755)]),
            "with data")
refused_zip("encrypted", both_flags(ZIP, 2, 1), "encrypted")
refused_zip("strongly-encrypted", both_flags(ZIP, 2, 0x41), "encrypted")
refused_zip("aes", both_method(ZIP, 2, 99), "encrypted")
refused_zip("lzma", zip_of([("f", b"x" * 100, 0)], zipfile.ZIP_LZMA), "method 14")
refused_zip("bzip2", zip_of([("f", b"x" * 100, 0)], zipfile.ZIP_BZIP2), "method 12")
refused_zip("overlap", zip_overlap, "overlap")
refused_zip("hidden-entry", zip_hidden_entry, "")
refused_zip("gap", lambda: zip_moved(LOCAL + bytes(96)), "")
refused_zip("prefix", zip_with_prefix, "not a package format")
refused_zip("directory-shorter", zip_shorter_directory, "does not name")
refused_zip("trailing-garbage", ZIP + b"garbage", "end of the")
refused_zip("trailing-zeros", ZIP + bytes(100), "end of the")
refused_zip("two-ends", ZIP[:-2] + struct.pack("<H", 22) + ZIP[-22:],
            "end record")
refused_zip("cut", ZIP[:-100], "end of the")
refused_zip("cut-half", ZIP[:len(ZIP) // 2], "end of the")
refused_zip("cut-minus-1", ZIP[:-1], "end of the")
refused_zip("name-disagrees", patched(ZIP, nth(ZIP, LOCAL, 2) + 30, b"other"), "disagree")
refused_zip("size-disagrees",
            patched(ZIP, nth(ZIP, CENTRAL, 2) + 24, struct.pack("<I", 100)), "disagree")
refused_zip("method-disagrees", patched(ZIP, nth(ZIP, CENTRAL, 2) + 10, b"\0\0"), "disagree")
refused_zip("crc-disagrees", patched(ZIP, nth(ZIP, CENTRAL, 2) + 16, b"abcd"), "disagree")
refused_zip("crc-wrong", lambda: patched(
    patched(ZIP, nth(ZIP, CENTRAL, 2) + 16, b"abcd"), nth(ZIP, LOCAL, 2) + 14, b"abcd"),
    "damaged")
refused_zip("data-flipped", flipped(ZIP, nth(ZIP, LOCAL, 2) + 10000), "damaged")
refused_zip("data-flipped-stored", flipped(ZIP_STORED, nth(ZIP_STORED, LOCAL, 2) + 10000),
            "damaged")
refused_zip("symlink-flipped", lambda: ZIP_STORED.replace(b"link" + b"bin/run",
                                                          b"link" + b"bin/rum", 1), "damaged")
refused_zip("symlink-with-nul",
            zip_of([("l", b"a\0b", stat.S_IFLNK | 0o777)], zipfile.ZIP_STORED), "nul")
refused_zip("symlink-empty", zip_of([("l", b"", stat.S_IFLNK | 0o777)]), "'l'")
refused_zip("count-wrong", patched(ZIP, ZIP.rindex(EOCD) + 8, b"\1\0\1\0"), "disagree")
add("zip-same-name-twice",
    lambda: zip_of([("f", b"x", 0), ("g", b"y", 0)]).replace(b"g", b"f"), REFUSED, "'f'",
    layer="manifest", suffix="zip")

# --- what is no package at all -----------------------------------------------------------

RPM = bytes.fromhex("edabeedb0300000000ff") + b"shop-1.0-1".ljust(86, b"\0")
HTML = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>...</body></html>\n"
add("empty-file", b"", REFUSED, "not a package format", suffix="tar.gz")
add("one-byte", b"\x1f", REFUSED, "not a package format", suffix="tar.gz")
add("rpm", RPM + noise(4000), REFUSED, "not a package format", suffix="tar.gz")
add("html-page", HTML, REFUSED, "not a package format", suffix="tar.gz")
add("html-page-long", HTML * 100, REFUSED, "not a package format", suffix="tar.gz")
add("noise", noise(100000), REFUSED, "not a package format", suffix="tar.gz")
add("elf", b"\x7fELF\2\1\1" + bytes(1000), REFUSED, "not a package format")
add("deb", b"!<arch>\ndebian-binary   ".ljust(2000), REFUSED, "not a package format")
add("half-a-block-of-zeros", bytes(256), REFUSED, "not a package format")


def write_all(folder):
    """Write every archive to @folder, and index.json."""
    index = []
    for name, case in CASES.items():
        filename = f"{name}.{case.suffix}"
        case.build(os.path.join(folder, filename))
        index.append({"name": name, "file": filename, "expected": case.expected,
                      "text": case.text, "layer": case.layer, "warning": case.warning})
    with open(os.path.join(folder, "index.json"), "w", encoding="utf-8") as out:
        json.dump(index, out, indent=1)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: bad_archives.py OUTDIR")
    os.makedirs(sys.argv[1], exist_ok=True)
    write_all(sys.argv[1])


if __name__ == "__main__":
    main()
