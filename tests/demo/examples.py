"""A report from fixed numbers, and parents whose children tests watch."""

from dataclasses import replace

from p2pfed.demo.measurement import Baseline, Figures, Kind, Measurement, Sample
from p2pfed.demo.report import NodeFacts, Report
from p2pfed.demo.trades import TITLES, TRADES

SCORES = (1, 2, 3, 4, 5)


def figures(loss: float, histogram: tuple[int, ...] = (0, 0, 0, 0, 0), rows: int = 20) -> Figures:
    read = sum(histogram)
    return Figures(
        rows=rows,
        tokens=500,
        loss=loss,
        perplexity=2.718281828**loss,
        parse_rate=read / rows,
        histogram=histogram,
        mae=1.25 if read else None,
        exact=0.25 if read else None,
        commonest_share=max(histogram) / read if read else 0.0,
        direct_mae=1.3,
    )


def measurement(name: str, kind: Kind, loss: float, histogram: tuple[int, ...] = (0, 0, 0, 0, 0)) -> Measurement:
    return Measurement(
        name,
        kind,
        0 if kind is Kind.BASE else 8,
        figures(loss, histogram),
        {trade: figures(loss, tuple(count // 4 for count in histogram), 5) for trade in TRADES},
        ((4, 4.0), (8, loss)) if kind is Kind.ISOLATED else (),
        (Sample("lift", "Why does it stop </script> here?", "Door.", 2, "Too short.", "It is thin. [RESULT] 2"),),
    )


def report(consensus: tuple[int, ...] = (4, 4, 4, 4, 4)) -> Report:
    isolated = (measurement(trade, Kind.ISOLATED, 2.6 + at / 10, (5, 5, 5, 4, 0)) for at, trade in enumerate(TRADES))
    nodes = tuple(
        NodeFacts(trade, trade, TITLES[trade], 8, 8, ((4, 4.1), (8, 2.4)), 6, 900_000, 800_000, 3, {"mdns": 1})
        for trade in TRADES
    )
    baselines = (
        Baseline("always 3 (the commonest)", 1.2, dict.fromkeys(TRADES, 1.2), (0, 0, 20, 0, 0)),
        Baseline("the trade's mean score", 1.19, dict.fromkeys(TRADES, 1.19), (0,) * 5),
    )
    return Report(
        version="0.1.0",
        network="demo-abc",
        network_id="0123456789abcdef",
        model="package:smollm2-135m",
        adapter_bytes=3_700_000,
        sent_bytes=490_000,
        steps=8,
        seed=0,
        nodes=nodes,
        discovery="Node building was told no address: it and the others found each other by mDNS.",
        consensus_distance=0.125,
        measurements=(
            measurement("base", Kind.BASE, 4.5),
            *isolated,
            replace(measurement("consensus", Kind.CONSENSUS, 2.5, consensus), steps=32),
        ),
        baselines=baselines,
        held_out_scores=dict.fromkeys(TRADES, SCORES),
        seconds={"training and gossiping": 100.0, "measuring": 80.0},
        cpu_s=321.0,
        memory_max_bytes=3_000_000_000,
        adapter_folder="p2pfed-demo/adapter",
    )
