"""Jobs: animations that are made while nobody waits for them, and outlive the process.

A request's form is stored whole before it is accepted (`inbox`), the ledger (`ledger`) knows every job's state, a
worker (`worker`) makes one after the other as `POST /animate` would, and a result appears whole or not at all
(`results`). The desk (`desk`) holds these together; `routes` is what clients see of it. docs/jobs.md tells the rest.
"""
