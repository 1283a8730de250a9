from vit.tasks.metrics import MetricsCSV


def rows(path):
    return (path / "metrics.csv").read_text().splitlines()


def test_one_row_per_step_with_new_columns_as_they_come(tmp_path):
    table = MetricsCSV(str(tmp_path / "run"))
    table.log_metrics({"lr": 0.1, "epoch": 0}, step=4)
    table.log_metrics({"val/acc": 0.5, "epoch": 0}, step=9)
    table.log_metrics({"train/loss": 1.5, "epoch": 0}, step=9)
    table.log_metrics({"lr": 0.2, "epoch": 1}, step=14)
    expected = ["epoch,step,lr,val/acc,train/loss", "0,4,0.1,,", "0,9,,0.5,1.5", "1,14,0.2,,"]
    assert rows(tmp_path / "run") == expected


def test_a_resumed_run_drops_the_rows_it_logs_again(tmp_path):
    first = MetricsCSV(str(tmp_path))
    for step in (4, 9, 14):
        first.log_metrics({"lr": step / 10, "epoch": 0}, step)
    second = MetricsCSV(str(tmp_path))
    second.log_metrics({"lr": 0.9, "epoch": 0}, step=9)
    second.log_metrics({"val/acc": 0.5, "epoch": 0}, step=10)
    assert rows(tmp_path) == ["epoch,step,lr,val/acc", "0,4,0.4,", "0,9,0.9,", "0,10,,0.5"]


def test_a_test_of_its_own_adds_a_row_and_drops_none(tmp_path):
    MetricsCSV(str(tmp_path)).log_metrics({"lr": 0.1, "epoch": 0}, step=4)
    MetricsCSV(str(tmp_path)).log_metrics({"test/acc": 0.5, "epoch": 0}, step=0)
    assert rows(tmp_path) == ["epoch,step,lr,test/acc", "0,4,0.1,", "0,0,,0.5"]
