"""Tests of work directories in buckets, against an object store on the loopback address."""
