"""The command line: what is accepted, and what is refused with words that help."""

from __future__ import annotations

from pathlib import Path

import pytest

from resilient.config import DEFAULT_KEEP, DEFAULT_SAVE, Best, KeepPolicy, SavePolicy
from resilient.errors import UsageError
from supervisor.command.cli import main, parse
from supervisor.command.option_parser import option_parser
from supervisor.group.program import Program


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train.py"
    path.write_text("print()")
    return str(path)


def test_the_defaults_are_the_documented_ones(script):
    """A save every 300 s, five kept, AES-GCM, runs/<script name>."""
    options = parse([script])
    assert (options.save, options.keep) == (DEFAULT_SAVE, DEFAULT_KEEP)
    assert options.key.mode == "AES-GCM"
    assert options.run_dir == Path("runs/train")
    assert (options.grace_s, options.restart.max_restarts) == (30.0, 10)


def test_what_follows_the_script_is_the_scripts(script):
    """Options of the script are not read as ours, whatever they are called."""
    options = parse(["--save-steps", "7", script, "--save-steps", "9", "--quiet", "-m", "--", "x"])
    assert options.save == SavePolicy(every_steps=7)
    assert options.program == Program("script", (script, "--save-steps", "9", "--quiet", "-m", "--", "x"))
    assert not options.quiet


def test_modules_and_commands(script):
    """-m and --no-python take the rest of the line."""
    assert parse(["-m", "package.train", "-x"]).program == Program("module", ("package.train", "-x"))
    assert parse(["-m", "package.train"]).run_dir == Path("runs/package.train")
    assert parse(["--no-python", "./job.sh", "-v"]).program == Program("command", ("./job.sh", "-v"))
    assert parse(["--keep-max=2", "--", script]).keep == KeepPolicy(max_count=2)


def test_keep_rules_come_on_top_of_each_other(script):
    """Each rule that is named is added; the newest five stay unless another number is named."""
    words = ["--keep-every-steps", "100", "--keep-best", "3"]
    assert parse([*words, script]).keep == KeepPolicy(5, every_steps=100, best=Best(3, "loss", "min"))
    words += ["--keep-best-by", "accuracy:max", "--keep-per-n-minutes", "9"]
    assert parse([*words, script]).keep == KeepPolicy(None, 9, 100, Best(3, "accuracy", "max"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no script is named"),
        (["-m"], "no module is named"),
        (["missing.py"], "there is no script missing.py"),
        (["/"], "/ is not a file"),
        (["--save-steps", "3", "--save-seconds", "4", "SCRIPT"], "--save-steps and --save-seconds exclude"),
        (["--keep-max", "3", "--keep-per-n-minutes", "4", "SCRIPT"], "--keep-max and --keep-per-n-minutes"),
        (["--keep-best-by", "accuracy:max", "SCRIPT"], "add --keep-best N"),
        (["--keep-best", "2", "--keep-best-by", "accuracy", "SCRIPT"], "accuracy:max or :min"),
        (["--keep-best", "0", "SCRIPT"], "'0' is not a whole number from 1 on"),
        (["--save-steps", "0", "SCRIPT"], "'0' is not a whole number from 1 on"),
        (["--save-seconds", "nan", "SCRIPT"], "'nan' is not a positive number"),
        (["--save-seconds", "inf", "SCRIPT"], "'inf' is not a positive number"),
        (["--backoff", "5", "SCRIPT"], "MIN:MAX"),
        (["--backoff", "9:3", "SCRIPT"], "MIN up to MAX"),
        (["--no-encrypt", "--key-file", "k", "SCRIPT"], "exclude each other"),
        (["--no-encrypt", "--enc-mode", "AES-CBC", "SCRIPT"], "exclude each other"),
        (["--key-file", "a", "--key-command", "b", "SCRIPT"], "--key-file and --key-command"),
        (["--enc-mode", "ROT13", "SCRIPT"], "invalid choice"),
        (["--what", "SCRIPT"], "--what"),
        (["--hang-timeout", "-3", "SCRIPT"], "--hang-timeout"),
        (["--hang-timeout", "soon", "SCRIPT"], "a number of seconds, or auto"),
        (["--memory-limit", "much", "SCRIPT"], "write 12G, 1.5GiB or 800MB"),
        (["--on-poison", "pray", "SCRIPT"], "invalid choice"),
    ],
)
def test_bad_usage_is_refused_with_words(script, words, said, capfd, tmp_path, monkeypatch):
    """Every mistake ends with status 64 and one line that names it; nothing is created."""
    monkeypatch.chdir(tmp_path)
    words = [script if word == "SCRIPT" else word for word in words]
    with pytest.raises(UsageError, match=None):
        parse(words)
    assert main(words) == 64
    assert said in capfd.readouterr().err
    assert not Path("runs").exists()


VALUED = [
    *("--run-dir", "--key-file", "--key-command", "--passphrase-file", "--old-key-file", "--enc-mode"),
    *("--save-steps", "--save-seconds", "--keep-max", "--keep-per-n-minutes", "--keep-every-steps"),
    *("--keep-best", "--keep-best-by", "--mirror-every", "--mirror-slots", "--max-restarts", "--grace"),
    *("--restart-window", "--backoff", "--on-poison", "--hang-timeout", "--memory-limit", "--log-format"),
    "--take-from-script",
]


def test_every_option_with_a_value_is_tried():
    """One that is added later has to be refused without a value as well."""
    actions = option_parser()._actions
    assert sorted(VALUED) == sorted(
        name for action in actions for name in action.option_strings if action.nargs != 0
    )


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("option", VALUED)
def test_an_empty_value_is_not_taken_for_none(script, option, apart, capfd, tmp_path, monkeypatch):
    """A variable that is not set must not make a new key, nor the current directory a run's."""
    monkeypatch.chdir(tmp_path)
    words = [option, ""] if apart else [f"{option}="]
    assert main([*words, script]) == 64
    assert f"argument {option}: " in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


@pytest.mark.parametrize("words", [[""], ["-m", ""], ["--no-python", "", "x"], ["--", " "]])
def test_an_empty_name_is_no_program(words, tmp_path, monkeypatch, capfd):
    """Nothing would be run, and in the directory of all runs."""
    monkeypatch.chdir(tmp_path)
    assert main(words) == 64
    assert "is named" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_end_well(option, capsys):
    """Both print something and exit 0."""
    with pytest.raises(SystemExit) as left:
        main([option])
    assert left.value.code == 0
    assert "resilient-run" in capsys.readouterr().out
