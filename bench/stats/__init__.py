"""Which differences between models hold: intervals, paired tests, rankings, and what retraining adds.

Every function takes one tidy DataFrame, a row per score: case, model, seed, region, metric, value. The case is the
sampling unit; scores of one case are averaged over seeds before anything is paired, and every family of tests is one
region and one metric. Rows come out sorted by region, metric and model. The same seed gives the same numbers, whatever
the order of the rows.

One training run per model supports claims about cases, not about retraining; `variance` tells the two apart, and
`rank_by_seed` shows where the next training turned the ranking round.
"""

from bench.stats.components import VARIANCE_COLUMNS, variance
from bench.stats.critical_difference import Friedman, friedman
from bench.stats.pairs import AGAINST_BEST_COLUMNS, COMPARE_COLUMNS, against_best, compare
from bench.stats.ranking import LOWER_IS_BETTER
from bench.stats.scores import COLUMNS, check
from bench.stats.seeds import SeedRanking, rank_by_seed
from bench.stats.stability import RankStability, rank_stability
from bench.stats.summary import SUMMARY_COLUMNS, summarise
from bench.stats.tiering import TIER_COLUMNS, tiers

__all__ = [
    "AGAINST_BEST_COLUMNS",
    "COLUMNS",
    "COMPARE_COLUMNS",
    "LOWER_IS_BETTER",
    "SUMMARY_COLUMNS",
    "TIER_COLUMNS",
    "VARIANCE_COLUMNS",
    "Friedman",
    "RankStability",
    "SeedRanking",
    "against_best",
    "check",
    "compare",
    "friedman",
    "rank_by_seed",
    "rank_stability",
    "summarise",
    "tiers",
    "variance",
]
