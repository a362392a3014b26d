"""Networks of many machines: calls that any replica answers, and a backend that asks.

    LocalEngine (heads, styles, clips) → ClusterNetworks → Asker → Replicas … Worker → Networks
                on the edge                                        on a machine with a device

A call depends on nothing but what it carries, so whoever has the weights may answer it, twice if need be. `edge` and
`serving` know of Ray; nothing else here does.
"""
