"""The prefixes that stock's ModelCheckpoint uses, in the attempts of one run."""

from __future__ import annotations

import json
import types

import pytest

from resilient.host.world import World
from resilient.worker.call.stock_names import StockNames


def stocks(directory, prefix, exception=False):
    """Stock's own rule, as far as it matters here: a number where files of the prefix are there."""
    return prefix + ("_1" if directory.endswith("full") else "")


def attempt(tmp_path, said=pytest.fail):
    """The function that stock's callbacks call in one attempt."""
    module = types.SimpleNamespace(_chg_ckpt_file_name_if_same_exist=stocks)
    StockNames(tmp_path / "names.json", World(), said).install(module)
    return module._chg_ckpt_file_name_if_same_exist


def test_each_attempt_gets_the_first_ones_answers_in_the_same_order(tmp_path):
    """Also where a folder has filled since, and where stock has chosen a number for the first attempt."""
    choose = attempt(tmp_path)
    (tmp_path / "a").mkdir()
    link = tmp_path / "full"
    link.symlink_to(tmp_path / "a")
    assert choose(str(tmp_path / "a"), "net") == "net"
    assert choose(str(link), "net") == "net_1"
    again = attempt(tmp_path)
    path = tmp_path / "names.json"
    # The folder has files now: stock itself would say so.
    path.write_text(path.read_text().replace(f'{tmp_path}/a"', f'{tmp_path}/was/full"'))
    third = attempt(tmp_path)
    assert third(f"{tmp_path}/was/full", "net") == "net"
    assert third(f"{tmp_path}/was/full", "net") == "net_1"
    assert again(str(link), "net") == "net_1"


def test_what_is_asked_for_anew_is_stocks_own_answer(tmp_path):
    """Another prefix, a directory that a function names, and the file of an exception."""
    choose = attempt(tmp_path)
    assert choose(f"{tmp_path}/full", "other") == "other_1"
    assert choose(f"{tmp_path}/full", "net", True) == "net_1"
    assert "net" not in (tmp_path / "names.json").read_text()


@pytest.mark.parametrize("content", ["{", "[[1]]", "[[1, 2, 3]]", '[["d", "net", ["../net"]]]', "[" * 9000])
def test_a_file_that_makes_no_sense_chooses_nothing(tmp_path, content):
    """It may be anybody's: a name from it never leads out of the folder."""
    folder = tmp_path / "full"
    (tmp_path / "names.json").write_text(content.replace('"d"', json.dumps(str(folder))))
    assert attempt(tmp_path, lambda text: None)(str(folder), "net") == "net_1"
