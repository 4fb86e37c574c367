"""Reference: the version that stands in three places, and the remembered hash of what it stands for.

If the second test fails, the interface was changed: bump ``VERSION`` in ``grip_edge/plugin/interface.py`` and in the
C++ plugin, and remember the new hash.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import grip_edge.plugin
from grip_edge.export.targets import budget_select
from grip_edge.plugin import interface

NATIVE = Path(grip_edge.plugin.__file__).parent / "native"

REMEMBERED = {"1": "cfac0d517b6cf88a"}


def test_graph_python_and_cpp_name_the_same_plugin() -> None:
    source = (NATIVE / "budget_select_plugin.cpp").read_text()
    constants = dict(re.findall(r'constexpr char const\* k(\w+) = "(\w+)";', source))
    assert constants == {"Name": interface.NAME, "Namespace": interface.NAMESPACE, "Version": interface.VERSION}
    found = (budget_select.BUDGET_SELECT, budget_select.DOMAIN, budget_select.PLUGIN_VERSION)
    assert found == (interface.NAME, interface.NAMESPACE, interface.VERSION)
    assert f"kMaxTokens = {interface.MAX_TOKENS};" in (NATIVE / "budget_select.cu").read_text()


def test_a_changed_interface_has_a_new_version() -> None:
    promises = [
        interface.NAMESPACE, interface.NAME, interface.INPUTS, interface.OUTPUTS, interface.SHAPE_INPUTS,
        interface.FLOAT_TYPES, interface.INDEX_TYPE, interface.MAX_TOKENS,
    ]  # fmt: skip
    methods = re.findall(
        r"int32_t getOutput(?:DataTypes|Shapes)\(.*?\n    }\n|bool supportsFormat.*?\n    }\n",
        (NATIVE / "budget_select_plugin.cpp").read_text(),
        re.DOTALL,
    )
    assert len(methods) == 3
    prototype = (NATIVE / "budget_select.h").read_text().split("int grip_budget_select", 1)[1]
    said = "".join((repr(promises), *methods, prototype)).split()
    assert REMEMBERED.get(interface.VERSION) == hashlib.sha256(" ".join(said).encode()).hexdigest()[:16]
