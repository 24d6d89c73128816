"""Answers to questions about instances, offers, hosts and agents: SQL in, reply struct out, one statement per question.

The runtime calls `QUERIES[type](query, context)` and `SIGNALS[type](signal, context)`; `context.pool` is this
service's database (active projection first, then the live schema), `context.world` its World. Split by noun:
`instances`, `hosts` (offers, blacklist, history), `pool_hosts` (for warm pools), `agents` (heartbeats),
`storage` (snapshots), `hibernation`, `cpu_standbys`, `contracts` (what effects need to know).
Nothing here writes facts.
"""

from __future__ import annotations

from collections.abc import Mapping

from libs.runtime.service import Answer
from proto.base import Query, Signal
from proto.instance.copy_queries import ListCpuStandbys, ListSnapshots, SignStorage
from proto.instance.queries import (
    AgentReport,
    CheckBlacklist,
    GetHibernationStats,
    GetInstance,
    GetStats,
    ListAgents,
    ListBlacklist,
    ListHosts,
    ListInstances,
    ListOffers,
    SummarizeHistory,
)
from services.instance.queries import agents, cpu_standbys, hibernation, hosts, instances, pool_hosts, storage

QUERIES: Mapping[type[Query], Answer] = {
    GetInstance: instances.get_instance,
    ListInstances: instances.list_instances,
    GetStats: instances.get_stats,
    GetHibernationStats: hibernation.hibernation_stats,
    ListOffers: hosts.list_offers,
    ListHosts: pool_hosts.list_hosts,
    ListBlacklist: hosts.list_blacklist,
    CheckBlacklist: hosts.check_blacklist,
    SummarizeHistory: hosts.summarize_history,
    ListAgents: agents.list_agents,
    ListSnapshots: storage.list_snapshots,
    ListCpuStandbys: cpu_standbys.list_cpu_standbys,
    SignStorage: storage.sign_storage,
}
SIGNALS: Mapping[type[Signal], Answer] = {AgentReport: agents.agent_report}
