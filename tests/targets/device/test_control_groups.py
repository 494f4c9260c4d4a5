"""Rooms in control groups, from folders as the kernel shows them, counted by hand."""

from __future__ import annotations

import pytest

from targets.device.control_groups import room_in_groups
from targets.device.memory import available_bytes

MIB = 1 << 20
NO_LIMIT = "9223372036854771712"


def account(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def process(tmp_path, groups, mounts):
    folder = tmp_path / "self"
    account(folder, cgroup=groups, mountinfo=mounts)
    return folder


def second_version(tmp_path, group="/box/job"):
    mount = tmp_path / "cgroup"
    return mount, process(
        tmp_path, f"0::{group}", f"30 23 0:26 / {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
    )


def first_version(tmp_path, group, root="/"):
    mount = tmp_path / "memory"
    mounts = (
        f"34 31 0:31 / {tmp_path}/cpuset rw - cgroup cgroup rw,cpuset\n"
        f"35 31 0:32 {root} {mount} rw,relatime - cgroup cgroup rw,memory"
    )
    return mount, process(tmp_path, f"5:memory:{group}\n3:cpu,cpuacct:/other\n0::/", mounts)


def test_the_second_version_counts_pages_of_files_as_free(tmp_path):
    mount, folder = second_version(tmp_path)
    stat = f"anon 1\nfile 2\ninactive_file {10 * MIB}\nactive_file {5 * MIB}"
    account(mount / "box/job", memory__max=100 * MIB, memory__high="max", memory__current=40 * MIB, memory__stat=stat)
    assert room_in_groups(folder) == (100 - 40 + 15) * MIB


def test_the_tightest_of_nested_groups_counts(tmp_path):
    mount, folder = second_version(tmp_path)
    account(mount / "box/job", memory__max="max", memory__high="max", memory__current=MIB)
    account(mount / "box", memory__max=64 * MIB, memory__high=48 * MIB, memory__current=30 * MIB)
    assert room_in_groups(folder) == 18 * MIB
    account(mount / "box/job", memory__max=8 * MIB)
    assert room_in_groups(folder) == 7 * MIB


def test_a_group_that_is_full_leaves_nothing(tmp_path):
    mount, folder = second_version(tmp_path)
    account(mount / "box", memory__max=10 * MIB, memory__current=11 * MIB)
    assert room_in_groups(folder) == 0


@pytest.mark.parametrize("limit", ["max", ""])
def test_no_limit(tmp_path, limit):
    mount, folder = second_version(tmp_path)
    account(mount / "box/job", memory__max=limit, memory__current=MIB)
    assert room_in_groups(folder) is None


def test_the_first_version_counts_a_subtree(tmp_path):
    mount, folder = first_version(tmp_path, "/a/b")
    stat = f"inactive_file 7\ntotal_inactive_file {2 * MIB}\ntotal_active_file {3 * MIB}"
    account(mount / "a/b", memory__limit_in_bytes=NO_LIMIT, memory__usage_in_bytes=MIB)
    account(mount / "a", memory__limit_in_bytes=50 * MIB, memory__usage_in_bytes=20 * MIB, memory__stat=stat)
    account(mount, memory__limit_in_bytes=NO_LIMIT, memory__usage_in_bytes=MIB)
    assert room_in_groups(folder) == 35 * MIB


@pytest.mark.parametrize(
    ("group", "root", "where"),
    [("/docker/abc/in", "/docker/abc", "in"), ("/docker/abc", "/docker/abc", "."), ("/elsewhere", "/docker/abc", ".")],
)
def test_a_container_sees_its_group_as_the_mounts_root(tmp_path, group, root, where):
    mount, folder = first_version(tmp_path, group, root)
    account(mount, memory__limit_in_bytes=NO_LIMIT, memory__usage_in_bytes=MIB)
    account(mount / where, memory__limit_in_bytes=9 * MIB, memory__usage_in_bytes=MIB)
    assert room_in_groups(folder) == 8 * MIB


def test_both_versions_mounted(tmp_path):
    mount, folder = first_version(tmp_path, "/a")
    (tmp_path / "unified").mkdir()
    with (folder / "mountinfo").open("a") as file:
        file.write(f"41 31 0:38 / {tmp_path}/unified rw - cgroup2 cgroup2 rw\n")
    account(mount / "a", memory__limit_in_bytes=5 * MIB, memory__usage_in_bytes=MIB)
    assert room_in_groups(folder) == 4 * MIB


@pytest.mark.parametrize("text", ["", "nonsense", "5:memory", "a - b", "1 2 3 - cgroup2 c rw"])
def test_accounts_that_say_nothing(tmp_path, text):
    assert room_in_groups(process(tmp_path, text, text)) is None
    assert room_in_groups(tmp_path / "missing") is None


def test_what_is_available_is_the_lesser_of_machine_and_group(tmp_path):
    mount, folder = second_version(tmp_path)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemAvailable: 20480 kB\n")
    account(mount / "box", memory__max=int(NO_LIMIT), memory__current=MIB)
    assert available_bytes(meminfo, folder) == 20 * MIB
    account(mount / "box", memory__max=12 * MIB)
    assert available_bytes(meminfo, folder) == 11 * MIB
    assert available_bytes(tmp_path / "missing", folder) == 11 * MIB
