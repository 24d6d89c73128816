"""Every refusal code of the platform, once: what it means, its HTTP status, what the caller should do, its text.

Deciders and effects name a code and give facts; the gateway turns it into an answer (dialects may rename it); webhooks
carry it in `error.code`. A code that is not here cannot be used: tests/spec/gateway walks the sources.

Texts are templates over the facts: `[ {fact}]` is left out when one of its facts is missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

Language = Literal["en", "pt"]

# Advice, in the words of the person who got the error.
_FIX = "Correct the request as the message says, then send it again."
_LOOK = "Check the id and the account of the key; list the resources to see what exists."
_WAIT = "Wait for the time in Retry-After, then send the same request again."
_SAFE = "Send the same request again; with the same Idempotency-Key nothing is done twice."
_STATE = "Read the resource, wait until its state allows this, then try again."
_FINAL = "This state does not change any more: use another resource, or make a new one."
_OTHER = "Choose another offer, region or GPU, or try later."
_KEY = "Send a valid key: Authorization: Bearer dumont_sk_... or X-API-Key."
_OPERATOR = "Ask the operator of this installation; quote the request id."


class Code(Struct, frozen=True):
    """`retry`: sending the same request again can succeed without changing it."""

    status: int
    meaning: str
    retry: bool
    advice: str
    en: str
    pt: str


CODES: dict[str, Code] = {
    # --- the request ------------------------------------------------------------------------------------------------
    "VALIDATION_ERROR": Code(
        400, "A field, parameter or the JSON itself is wrong.", False, _FIX,
        "Invalid request parameters[: {reason}]", "Parâmetros inválidos[: {reason}]"),
    "PAYLOAD_TOO_LARGE": Code(
        413, "The body is larger than the gateway reads.", False, "Send less than the limit.",
        "Request body is too large[: the limit is {limit_mb} MB]",
        "Corpo da requisição grande demais[: o limite é {limit_mb} MB]"),
    "UNSUPPORTED_MEDIA_TYPE": Code(
        415, "The body is not JSON.", False, "Send Content-Type: application/json.",
        "Content-Type must be application/json", "Content-Type deve ser application/json"),
    "NOT_FOUND": Code(
        404, "No such route.", False, "See /openapi.json for the routes.",
        "Route not found[: {method} {path}]", "Rota não encontrada[: {method} {path}]"),
    "METHOD_NOT_ALLOWED": Code(
        405, "The route exists, the method does not.", False, "Use one of the methods in Allow.",
        "Method not allowed[: use {allow}]", "Método não permitido[: use {allow}]"),
    "IDEMPOTENCY_CONFLICT": Code(
        409, "The Idempotency-Key was used before with another body.", False,
        "Use a new Idempotency-Key, or repeat the first body.",
        "This Idempotency-Key was already used with a different request",
        "Esta Idempotency-Key já foi usada com outra requisição"),
    # --- who asks ---------------------------------------------------------------------------------------------------
    "UNAUTHENTICATED": Code(
        401, "No key, or one that is unknown, expired or revoked.", False, _KEY,
        "Invalid or missing API key", "Chave de API ausente ou inválida"),
    "FORBIDDEN": Code(
        403, "The key may not do this at all.", False, "Use a key of the right kind or account.",
        "This key may not do that", "Esta chave não pode fazer isso"),
    "INSUFFICIENT_SCOPE": Code(
        403, "The key lacks a scope.", False, "Issue a key with the named scope.",
        "This key lacks a scope[: {scope}]", "Esta chave não tem o escopo necessário[: {scope}]"),
    "API_KEY_NOT_FOUND": Code(
        404, "No such key in this account.", False, _LOOK,
        "API key not found[: {key_id}]", "Chave de API não encontrada[: {key_id}]"),
    "ACCOUNT_NOT_FOUND": Code(
        404, "No such account.", False, "Check the id; open it with `dumont accounts open`.",
        "Account not found[: {account_id}]", "Conta não encontrada[: {account_id}]"),
    "RATE_LIMIT_EXCEEDED": Code(
        429, "Too many requests.", True, _WAIT,
        "Rate limit exceeded[; try again in {retry_after_s} s]",
        "Limite de requisições excedido[; tente de novo em {retry_after_s} s]"),
    # --- money ------------------------------------------------------------------------------------------------------
    "INSUFFICIENT_BALANCE": Code(
        402, "The prepaid balance does not cover this.", False, "Add credits, then try again.",
        "Insufficient balance for this operation", "Saldo insuficiente para esta operacao"),
    "REFERENCE_CONFLICT": Code(
        409, "The payment reference was used before for another amount or method.", False,
        "Use a new reference, or repeat the first amount and method.",
        "This payment reference was already used[: {reference}]",
        "Esta referência de pagamento já foi usada[: {reference}]"),
    "PAYMENT_DECLINED": Code(
        402, "The payment was declined.", False, "Use another method, or a new reference to try again.",
        "The payment was declined[: {reason}]", "O pagamento foi recusado[: {reason}]"),
    "INVOICE_NOT_FOUND": Code(
        404, "No such month in this account.", False, "List the invoices to see which exist.",
        "Invoice not found[: {month}]", "Fatura não encontrada[: {month}]"),
    "QUOTA_EXCEEDED": Code(
        429, "The account has as many running instances as one account may have.", False,
        "Stop or delete instances, or use another account.",
        "Too many instances in this account[: the limit is {limit}]",
        "Instâncias demais nesta conta[: o limite é {limit}]"),
    # --- instances --------------------------------------------------------------------------------------------------
    "INSTANCE_NOT_FOUND": Code(
        404, "No such instance in this account.", False, _LOOK,
        "Instance not found[: {instance_id}]", "Máquina não encontrada[: {instance_id}]"),
    "INSTANCE_ALREADY_EXISTS": Code(
        409, "The id is taken by another request.", False, "Leave the id out or use another Idempotency-Key.",
        "Instance already exists[: {instance_id}]", "A máquina já existe[: {instance_id}]"),
    "INSTANCE_NAME_AMBIGUOUS": Code(
        409, "Several live instances carry this name.", False, "Use one of the ids in details.",
        "Several instances are named[ {name}][: {instance_ids}]",
        "Várias máquinas têm o mesmo nome[: {name}][ ({instance_ids})]"),
    "INVALID_STATE": Code(
        409, "The resource's state does not allow this.", True, _STATE,
        "Not possible in the current state[ ({status})]", "Não é possível no estado atual[ ({status})]"),
    "INSTANCE_NOT_STARTABLE": Code(
        400, "Only stopped, exited or failed instances can be started.", True, _STATE,
        "Instance cannot be started[ in status {status}]", "A máquina não pode ser iniciada[ no estado {status}]"),
    "INSTANCE_NOT_STOPPABLE": Code(
        400, "The instance cannot be stopped now.", True, _STATE,
        "Instance cannot be stopped[ in status {status}]", "A máquina não pode ser parada[ no estado {status}]"),
    "INSTANCE_NOT_DELETABLE": Code(
        400, "The instance cannot be deleted now.", True, _STATE,
        "Instance cannot be deleted[ in status {status}]", "A máquina não pode ser apagada[ no estado {status}]"),
    "STARTUP_OPERATION_IN_PROGRESS": Code(
        409, "A start is already under way.", True, _STATE,
        "Instance is already starting[: {instance_id}]", "A máquina já está iniciando[: {instance_id}]"),
    "STARTUP_TIMEOUT": Code(
        408, "The machine did not come up in its time.", True, _OTHER,
        "Instance failed to start within[ {minutes} minutes]", "A máquina não iniciou em[ {minutes} minutos]"),
    "STARTUP_FAILED": Code(
        500, "The machine could not be brought up.", True, _OTHER,
        "Instance failed to start[: {reason}]", "A máquina não iniciou[: {reason}]"),
    "HEALTH_CHECK_TIMEOUT": Code(
        408, "The endpoints did not answer in time.", True, _OTHER,
        "Health check timed out[: {reason}]", "A verificação de saúde expirou[: {reason}]"),
    "HEALTH_CHECK_FAILED": Code(
        503, "An endpoint answered wrongly.", True, _OTHER,
        "Health check failed[: {reason}]", "A verificação de saúde falhou[: {reason}]"),
    # --- market and hosts -------------------------------------------------------------------------------------------
    "RESTORE_FAILED": Code(
        500, "The machine could not be filled from the snapshot.", True,
        "Start the instance again; if it fails again, ask the operator.",
        "The files could not be restored[: {reason}]", "Os arquivos não puderam ser restaurados[: {reason}]"),
    "OFFER_NOT_FOUND": Code(
        404, "No such offer.", False, _OTHER, "Offer not found[: {offer_id}]", "Oferta não encontrada[: {offer_id}]"),
    "OFFER_UNAVAILABLE": Code(
        409, "The offer was taken meanwhile.", False, _OTHER,
        "Offer is no longer available[: {offer_id}]", "A oferta não está mais disponível[: {offer_id}]"),
    "PRODUCT_NOT_FOUND": Code(
        404, "No GPU product of this name.", False, "List /api/v1/offers to see the names.",
        "Product not found[: {gpu}]", "Produto não encontrado[: {gpu}]"),
    "NO_AVAILABLE_PRODUCTS": Code(
        404, "The product exists, but nothing can be rented now.", True, _OTHER,
        "No machine is available[ for {gpu}]", "Nenhuma máquina disponível[ para {gpu}]"),
    "NO_OPTIMAL_PRODUCT_ANY_REGION": Code(
        404, "No region has a fitting machine.", True, _OTHER,
        "No region has a fitting machine[ for {gpu}]", "Nenhuma região tem uma máquina adequada[ para {gpu}]"),
    "TEMPLATE_NOT_FOUND": Code(
        404, "No template of this id.", False, "Use pytorch-jupyter, or a numeric template id.",
        "Template not found[: {template_id}]", "Template não encontrado[: {template_id}]"),
    "REGISTRY_AUTH_NOT_FOUND": Code(
        404, "The template's registry credentials do not exist.", False, _OPERATOR,
        "Registry credentials not found[: {auth_id}]", "Credenciais de registro não encontradas[: {auth_id}]"),
    "RESOURCE_CONSTRAINTS": Code(
        503, "The provider has no capacity.", True, _OTHER,
        "No capacity right now[: {reason}]", "Sem capacidade no momento[: {reason}]"),
    "INSUFFICIENT_RESOURCE": Code(
        400, "The provider refused for lack of resources.", True, _OTHER,
        "Insufficient resources[: {reason}]", "Recursos insuficientes[: {reason}]"),
    "MACHINE_NOT_FOUND": Code(
        404, "No such machine.", False, _LOOK, "Machine not found[: {machine_id}]",
        "Máquina física não encontrada[: {machine_id}]"),
    "MACHINE_FENCED": Code(
        409, "The machine no longer carries its instance; a later one does.", False,
        "Stop: this machine is given back.",
        "This machine no longer carries the instance[: generation {generation} does]",
        "Esta máquina não carrega mais a instância[: a geração {generation} carrega]"),
    "SNAPSHOT_NOT_FOUND": Code(
        404, "No such snapshot, or it is not being taken.", False, _LOOK,
        "Snapshot not found[: {snapshot_id}]", "Snapshot não encontrado[: {snapshot_id}]"),
    "SNAPSHOT_IN_PROGRESS": Code(
        409, "A snapshot of this instance is being taken.", True, _STATE,
        "A snapshot is being taken[: {snapshot_id}]", "Um snapshot está em andamento[: {snapshot_id}]"),
    "HOST_NOT_FOUND": Code(
        404, "No such host.", False, _LOOK, "Host not found[: {host_id}]", "Host não encontrado[: {host_id}]"),
    "BLACKLIST_ENTRY_NOT_FOUND": Code(
        404, "The host is not on the blacklist.", False, _LOOK,
        "Blacklist entry not found[: {provider}/{host_id}]", "Bloqueio não encontrado[: {provider}/{host_id}]"),
    # --- survival ---------------------------------------------------------------------------------------------------
    "ASSOCIATION_NOT_FOUND": Code(
        404, "No standby association.", False, _LOOK, "Association not found[: {instance_id}]",
        "Associação não encontrada[: {instance_id}]"),
    "FAILOVER_NOT_FOUND": Code(
        404, "No such failover.", False, _LOOK, "Failover not found[: {failover_id}]",
        "Failover não encontrado[: {failover_id}]"),
    "FAILOVER_IN_PROGRESS": Code(
        409, "A failover of this instance is running.", True, _STATE,
        "A failover is already in progress[: {failover_id}]", "Já há um failover em andamento[: {failover_id}]"),
    "FAILOVER_DISABLED": Code(
        409, "Failover is off for this instance.", False, "Enable a strategy in the failover settings.",
        "Failover is disabled for this instance", "O failover está desativado para esta máquina"),
    "FAILOVER_LIMIT_REACHED": Code(
        429, "Too many failovers of this instance.", True, _WAIT,
        "Failover limit reached[; try again in {retry_after_s} s]",
        "Limite de failovers atingido[; tente de novo em {retry_after_s} s]"),
    "HOST_INSUFFICIENT_GPUS": Code(
        409, "The host has no free GPU for a standby.", True, "Choose another host, or try later.",
        "The host has no free GPU for a standby[: {host_id}]", "O host não tem GPU livre para um standby[: {host_id}]"),
    "WARMPOOL_EXISTS": Code(
        409, "The instance already has a warm pool.", False, "Read its status instead.",
        "A warm pool already exists for this instance", "Já existe um warm pool para esta máquina"),
    "MIGRATION_ERROR": Code(
        500, "A migration went wrong.", True, _OPERATOR,
        "Migration failed[: {reason}]", "A migração falhou[: {reason}]"),
    "MIGRATION_JOB_CONFLICT": Code(
        409, "A migration job is running.", True, _STATE,
        "A migration job is already in progress", "Já há uma migração em andamento"),
    # --- webhooks, features -----------------------------------------------------------------------------------------
    "WEBHOOK_NOT_FOUND": Code(
        404, "No such webhook.", False, _LOOK, "Webhook not found[: {webhook_id}]",
        "Webhook não encontrado[: {webhook_id}]"),
    "WEBHOOK_URL_REFUSED": Code(
        400, "Deliveries may not be sent to this URL.", False, "Use a URL on the public internet.",
        "Webhooks cannot be sent to this URL[: {reason}]", "Não é possível enviar webhooks a esta URL[: {reason}]"),
    "DELIVERY_NOT_FOUND": Code(
        404, "No such delivery of this webhook.", False, "List the attempts of the webhook to see what exists.",
        "Delivery not found[: {delivery_id}]", "Entrega não encontrada[: {delivery_id}]"),
    "FEATURE_DISABLED": Code(
        404, "This installation has the feature off.", False, _OPERATOR,
        "Feature is disabled[: {feature}]", "Recurso desativado[: {feature}]"),
    "NOT_CONFIGURED": Code(
        503, "The feature needs configuration.", False, _OPERATOR,
        "Not configured[: {feature}]", "Não configurado[: {feature}]"),
    "CACHE_STATS_ERROR": Code(
        500, "Cache numbers could not be read.", True, _SAFE,
        "Cache statistics failed", "Falha nas estatísticas de cache"),
    "CACHE_CLEAR_ERROR": Code(
        500, "A cache could not be cleared.", True, _SAFE, "Clearing the cache failed", "Falha ao limpar o cache"),
    # --- providers --------------------------------------------------------------------------------------------------
    "PROVIDER_ERROR": Code(
        502, "The GPU cloud answered with an error.", True, _SAFE,
        "The GPU provider failed[: {reason}]", "O provedor de GPU falhou[: {reason}]"),
    "NOVITA_API_ERROR": Code(
        502, "The upstream cloud answered with an error (name in the Novita dialect).", True, _SAFE,
        "Upstream API error[: {reason}]", "Erro na API do provedor[: {reason}]"),
    "PROVIDER_UNAVAILABLE": Code(
        503, "The GPU cloud cannot be reached.", True, _WAIT,
        "The GPU provider is unavailable[: {provider}]", "O provedor de GPU está indisponível[: {provider}]"),
    "PROVIDER_TIMEOUT": Code(
        504, "The GPU cloud did not answer in time.", True, _SAFE,
        "The GPU provider did not answer in time[: {provider}]",
        "O provedor de GPU não respondeu a tempo[: {provider}]"),
    "CIRCUIT_BREAKER_OPEN": Code(
        503, "The GPU cloud failed repeatedly and is being spared.", True, _WAIT,
        "The GPU provider is being spared after repeated failures",
        "O provedor de GPU está em pausa após falhas repetidas"),
    # --- the platform itself ----------------------------------------------------------------------------------------
    "SERVICE_UNAVAILABLE": Code(
        503, "A part of the platform is away. A command may be sent again: nothing is done twice.", True, _WAIT,
        "Service is temporarily unavailable[ ({service})]; try again",
        "Serviço temporariamente indisponível[ ({service})]; tente de novo"),
    "OVERLOADED": Code(
        503, "A service has too much to do; nothing was done.", True, _WAIT,
        "The service is overloaded; try again", "O serviço está sobrecarregado; tente de novo"),
    "REQUEST_TIMEOUT": Code(
        408, "The request was not sent completely in time.", True, _SAFE,
        "The request was not received in time", "A requisição não chegou a tempo"),
    "OUTCOME_UNKNOWN": Code(
        504, "No answer came in time: the request may or may not have been carried out.", True, _SAFE,
        "No answer in time: read the resource[ {instance_id}] to see the outcome, or send the same request again",
        "Sem resposta a tempo: consulte o recurso[ {instance_id}] ou repita a mesma requisição"),
    "INTERNAL_ERROR": Code(
        500, "A bug.", False, _OPERATOR,
        "Internal server error; quote the request id", "Erro interno; informe o id da requisição"),
}  # fmt: skip

# What a resource in one of these states refuses, it refuses for good.
FINAL_STATUSES = frozenset({"deleting", "deleted", "revoked", "rotated", "expired"})

_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
_FACT = re.compile(r"\{(\w+)\}")


def text(code: str, facts: Mapping[str, Any], language: Language = "en") -> str:
    """The message for a person."""
    template = CODES[code].en if language == "en" else CODES[code].pt

    def fill(part: re.Match[str]) -> str:
        names: list[str] = _FACT.findall(part[1])
        if any(facts.get(name) in (None, "") for name in names):
            return ""
        return _FACT.sub(lambda fact: _shown(facts[fact[1]]), part[1])

    return _OPTIONAL.sub(fill, template)


def retry_and_advice(code: str, facts: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the same request may succeed later, and what to do; who refuses knows best (the fact `advice`)."""
    known = CODES[code]
    is_final = facts.get("status") in FINAL_STATUSES
    advice = _FINAL if is_final and known.advice == _STATE else known.advice
    return known.retry and not is_final, str(facts.get("advice") or advice)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)
