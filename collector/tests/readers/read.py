"""Reads what has arrived in a bucket as its users do: manifests with pyarrow, shards with webdataset."""

import glob
import json
import os
import sys

import boto3
import pyarrow.parquet as parquet
import webdataset

bucket, folder = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
for item in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
    path = os.path.join(folder, item["Key"])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    s3.download_file(bucket, item["Key"], path)

table = parquet.read_table(os.path.join(folder, "digits/manifests"))
rows = table.to_pylist()
shards = sorted(glob.glob(os.path.join(folder, "digits/shards/*.tar")))
samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8")) if shards else []
print(json.dumps({
    "ids": sorted(row["id"] for row in rows),
    "labels": {row["id"]: [row["label"], row["label_author"]] for row in rows if row["label"]},
    "measured": sorted(row["content"] for row in rows if row["content"]),
    "sources": sorted({row["source"] for row in rows}),
    "time": str(table.schema.field("time").type),
    "years": sorted({row["time"].year for row in rows}),
    "pictures": {sample["__key__"]: [list(sample["png"].shape), int(sample["png"][0, 0, 0])] for sample in samples},
    "classes": {sample["__key__"]: sample["cls"] for sample in samples if "cls" in sample},
}))
