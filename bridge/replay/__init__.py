"""Dead letters back into the pipeline, each once.

A letter is an event that failed, with the reason (``bridge.pipeline.deadletters``). Letters are
read from a file or a topic, selected, and what failed is put back where it came from: its value
into a topic, or the event to a Forward server. Which letters went is written into a ledger, so that
the next run leaves those out:

- from topic to topic the ledger is a topic too, and its entries are in the same transaction as the
  messages: a letter goes exactly once, whatever is killed and whenever;
- from a topic to a Forward server the entry is written after the acknowledgement, and from a file
  the entry stands in a file beside it: at least once, and twice only where a run was killed between
  the delivery of a batch and its entry.
"""
