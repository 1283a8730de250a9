"""The ``vit`` command: dispatch only. A command's modules, torch among them, are imported when it runs."""

import io
import sys
from collections.abc import Callable
from typing import NamedTuple

from vit.commandline.arguments import with_flags
from vit.names import did_you_mean

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
PARSED = ("fit", "validate", "test", "predict")


class Command(NamedTuple):
    """A line of ``vit --help`` and what it runs, called with the rest of the command line."""

    usage: str
    summary: str
    run: Callable[[list[str]], int]


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code. What a user can put right is said in one line, ``--debug`` adds the traceback."""
    args = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files are bytes, not always text
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in args
    args = [argument for argument in args if argument != "--debug"]
    if not args or args[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    try:
        return _dispatch(args[0], args[1:])
    except KeyboardInterrupt as error:
        print(f"vit: {str(error) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        if debug:
            raise
        print(f"vit: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return WRONG_USE
    except Exception as error:  # of a library or our own: not the user's to put right, but never a wall of text
        if debug:
            raise
        reason = " ".join(str(error).split())
        print(f"vit: {type(error).__name__}: {reason}; --debug shows where", file=sys.stderr)
        return FAILED
    except SystemExit as error:  # a parser's --help, or a run ended by a signal
        return error.code if isinstance(error.code, int) else int(error.code is not None)


def _dispatch(name: str, args: list[str]) -> int:
    command = COMMANDS.get(name)
    if command is None:
        hint = did_you_mean(name, COMMANDS, cutoff=0.5) or f"; there are {', '.join(COMMANDS)}"
        raise ValueError(f"unknown command {name!r}{hint}")
    if name in PARSED and {"-h", "--help"} & set(args):
        from vit.commandline.options import VitCLI

        VitCLI(name, ["--help"])
    return command.run(args)


def _fit(args: list[str]) -> int:
    args = with_flags("fit", args)
    from lightning.pytorch.utilities import rank_zero_only

    from vit import run

    done = run.fit(args)
    if done.folder.is_dir() and done.seconds:  # not of a run that was finished already, which was said
        time = f"{done.seconds:.0f} s, {done.waited / done.seconds:.0%} of it waiting for data"
        rank_zero_only(print)(f"{done.folder}: {_text(done.metrics, 'val/')}; {time}; next: {done.next}")
    return 0


def _validate(args: list[str]) -> int:
    args = with_flags("validate", args)
    from vit import evaluate

    print(_text(evaluate.validate(args), "val/"))
    return 0


def _test(args: list[str]) -> int:
    args = with_flags("test", args)
    from vit import evaluate

    result = evaluate.test(args)
    low, high = result["acc_95"]
    print(f"{result['data']}: accuracy {result['acc']:.4f} (95 % interval {low:.4f} to {high:.4f}, n = {result['n']})")
    return 0


def _predict(args: list[str]) -> int:
    args = with_flags("predict", args)
    from vit import evaluate
    from vit.commandline import predictions

    predicted = evaluate.predict(args)
    predictions.show(predicted)
    return FAILED if any(prediction.error for prediction in predicted) else 0


def _explain(args: list[str]) -> int:
    from vit import explain

    return explain.main(args)


def _export(args: list[str]) -> int:
    from vit import export

    return export.main(args)


def _check(args: list[str]) -> int:
    from vit import check

    return check.main(args)


def _probe(args: list[str]) -> int:
    from vit import probe

    return probe.main(with_flags("probe", args))


def _study(args: list[str]) -> int:
    name = args[0] if args else "--help"
    if name in ("-h", "--help"):
        print("\n".join(f"vit study {study:<11}{summary}" for study, summary in STUDIES.items()))
        return 0
    if name not in STUDIES:
        hint = did_you_mean(name, STUDIES) or f"; there are {', '.join(STUDIES)}"
        raise ValueError(f"unknown study {name!r}{hint}")
    from vit.experiments import datasize, mechanisms, report, transfer

    mains = {
        "data-size": datasize.main,
        "mechanisms": mechanisms.main,
        "report": report.main,
        "transfer": transfer.main,
    }
    return mains[name](args[1:])


def _bench(args: list[str]) -> int:
    from vit.experiments import bench

    return bench.main(args)


def _demo(args: list[str]) -> int:
    from vit import demo

    return demo.main(args)


def _text(metrics: dict[str, float], prefix: str) -> str:
    shown = (f"{name} {value:.4f}" for name, value in metrics.items() if name.startswith(prefix))
    return ", ".join(shown) or "done"


def _help() -> str:
    width = max(len(command.usage) for command in COMMANDS.values())
    lines = (f"  {command.usage:<{width}}   {command.summary}" for command in COMMANDS.values())
    return HELP.format(commands="\n".join(lines))


HELP = """\
Which vision architecture should I train on this many images, how well will it do, and what does it look at?

{commands}

-c NAME is a packaged config (quickstart, model/vit_tiny, ...) or a YAML file; several compose, the later one wins.
Options follow as --trainer.max_epochs 10 or --data.root my_photos/; `vit fit --help` lists them.
--debug shows the traceback of an error."""

STUDIES = {
    "data-size": "which architecture, and would more pictures help? Arms x sizes x seeds; --help lists the options",
    "mechanisms": "accuracy, speed and memory of mixers, readouts, positions: --vary mixer|readout|position|block",
    "transfer": "pretrained with and without labels, finetuned with a few: sources x targets, against scratch",
    "report": "DIR [--size N]: a study's report once more, with advice for N pictures of your own",
}
COMMANDS = {
    "check": Command("vit check DATA [--strict]", "a data set's counts, bad files, duplicates and leaks", _check),
    "fit": Command("vit fit -c quickstart [--run DIR]", "train; --resume DIR continues a run", _fit),
    "validate": Command("vit validate MODEL", "loss and accuracy on the validation split", _validate),
    "test": Command("vit test MODEL", "accuracy on the test split, with its interval", _test),
    "predict": Command(
        "vit predict MODEL PICTURES [--out FILE]",
        "classes of pictures, and with --include logits,embeddings these, to CSV or JSON",
        _predict,
    ),
    "probe": Command("vit probe MODEL [--shots 1,5]", "what its frozen features tell of classes, few-shot too", _probe),
    "study": Command(
        "vit study data-size|mechanisms|transfer",
        "which architecture to train on this many pictures; which mixer; which pretraining",
        _study,
    ),
    "bench": Command(
        "vit bench attention|model [--out DIR]",
        "time and memory of attention's parts, of whole nets",
        _bench,
    ),
    "explain": Command(
        "vit explain MODEL PICTURES [--out DIR]", "where the model looks, drawn over the pictures", _explain
    ),
    "export": Command(
        "vit export MODEL --format onnx", "a checked file for other programs; torch-export, timm, safetensors", _export
    ),
    "demo": Command("vit demo", "all of it on handwritten digits, in minutes on a CPU", _demo),
}
