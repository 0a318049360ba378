"""The Spark job of ``benchmarks.kafka``: a program of its own, run by the Python that has pyspark.

    job.py --bootstrap HOST:PORT --input TOPIC --output TOPIC --checkpoint FOLDER --udf KIND

Imports nothing but what stands beside it: Spark's Python need not have this project's
dependencies. The first line printed says which library reads and writes JSON.
"""

import argparse

import pyarrow as pa
from documents import LIBRARY, document
from enrich import enrich
from pyspark.sql import SparkSession
from pyspark.sql.functions import arrow_udf, col, from_json, pandas_udf, struct, to_json, udf
from pyspark.sql.types import BinaryType, StringType

SCHEMA = (
    "id long, url string, ua string, country string, price double, ip string, campaign long,"
    " user string, type string, ok boolean, referrer string"
)


def row(values):
    """A UDF called for each event, pickled."""
    return udf(document, BinaryType(), useArrow=False)(values)


def arrow_row(values):
    """A UDF called for each event, its values carried by Arrow."""
    return udf(document, BinaryType(), useArrow=True)(values)


def arrow(values):
    """A UDF on Arrow arrays."""

    def documents(array: pa.Array) -> pa.Array:
        return pa.array([document(value) for value in array.to_pylist()], pa.binary())

    return arrow_udf(documents, BinaryType())(values)


def pandas(values):
    """A UDF on pandas series."""
    import pandas as pd  # noqa: PLC0415 - the others do without

    def documents(series: pd.Series) -> pd.Series:
        return pd.Series([document(value) for value in series])

    return pandas_udf(documents, BinaryType())(values)


def columns(values):
    """JSON by Spark itself, and only the URL handed to a UDF on Arrow arrays.

    Needs the events' schema, and loses what is not in it.
    """

    def sites(urls: pa.Array) -> pa.Array:
        return pa.array([enrich({"url": url})["site"] for url in urls.to_pylist()], pa.string())

    record = from_json(values.cast("string"), SCHEMA)
    site = arrow_udf(sites, StringType())(record.getField("url"))
    names = [field.split()[0] for field in SCHEMA.split(", ")]
    fields = [record.getField(name).alias(name) for name in names]
    return to_json(struct(*fields, site.alias("site")))


KINDS = {"row": row, "arrow-row": arrow_row, "arrow": arrow, "pandas": pandas, "columns": columns}


def main() -> None:
    """Run until all events that there were at the start are out, or, with --follow, until a signal."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "input", "output", "checkpoint"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--udf", choices=KINDS, required=True)
    parser.add_argument("--events-a-trigger", type=int, default=200_000)
    parser.add_argument("--follow", action="store_true", help="Spark's default trigger, no end")
    parser.add_argument("--conf", action="append", default=[], help="NAME=VALUE for Spark")
    options = parser.parse_args()
    print(f"JSON by {LIBRARY}", flush=True)

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    for setting in options.conf:
        builder = builder.config(*setting.split("=", 1))
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    reader = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", options.bootstrap)
        .option("subscribe", options.input)
        .option("startingOffsets", "earliest")
    )
    if not options.follow:
        reader = reader.option("maxOffsetsPerTrigger", options.events_a_trigger)
    events = reader.load().select(KINDS[options.udf](col("value")).alias("value"))
    writer = (
        events.writeStream.format("kafka")
        .option("kafka.bootstrap.servers", options.bootstrap)
        .option("topic", options.output)
        .option("checkpointLocation", options.checkpoint)
    )
    query = (writer if options.follow else writer.trigger(availableNow=True)).start()
    query.awaitTermination()
    spark.stop()


if __name__ == "__main__":
    main()
