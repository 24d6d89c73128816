"""Advice in the caller's language: what `codes` and the deciders say in English, in Portuguese too.

Used by the gateway beside `codes.text`. Keyed by the English sentence, because a decider gives its advice as a fact;
one that is not here stays English.
"""

from __future__ import annotations

from proto.codes import Language

PORTUGUESE: dict[str, str] = {
    "Add credits, then try again.": "Adicione créditos e tente de novo.",
    "Ask the operator of this installation; quote the request id.": (
        "Fale com o operador desta instalação e informe o id da requisição."
    ),
    "Check the id and the account of the key; list the resources to see what exists.": (
        "Confira o id e a conta da chave; liste os recursos para ver o que existe."
    ),
    "Check the id; open it with `dumont accounts open`.": "Confira o id; abra a conta com `dumont accounts open`.",
    "Choose another host, or try later.": "Escolha outro host, ou tente mais tarde.",
    "Choose another offer, region or GPU, or try later.": ("Escolha outra oferta, região ou GPU, ou tente mais tarde."),
    "Correct the request as the message says, then send it again.": (
        "Corrija a requisição como diz a mensagem e envie de novo."
    ),
    "Enable a strategy in the failover settings.": "Habilite uma estratégia nas configurações de failover.",
    "Issue a key with the named scope.": "Gere uma chave com o escopo indicado.",
    "Leave the id out or use another Idempotency-Key.": "Omita o id ou use outra Idempotency-Key.",
    "List /api/v1/offers to see the names.": "Liste /api/v1/offers para ver os nomes.",
    "List the attempts of the webhook to see what exists.": "Liste as tentativas do webhook para ver o que existe.",
    "List the invoices to see which exist.": "Liste as faturas para ver quais existem.",
    "Read its status instead.": "Consulte o status dele.",
    "Read the resource, wait until its state allows this, then try again.": (
        "Consulte o recurso, espere que o estado permita e tente de novo."
    ),
    "See /openapi.json for the routes.": "Veja as rotas em /openapi.json.",
    "Send Content-Type: application/json.": "Envie Content-Type: application/json.",
    "Send a valid key: Authorization: Bearer dumont_sk_... or X-API-Key.": (
        "Envie uma chave válida: Authorization: Bearer dumont_sk_... ou X-API-Key."
    ),
    "Send less than the limit.": "Envie menos que o limite.",
    "Send the same request again; with the same Idempotency-Key nothing is done twice.": (
        "Repita a mesma requisição; com a mesma Idempotency-Key nada é feito duas vezes."
    ),
    "Start the instance again; if it fails again, ask the operator.": (
        "Inicie a instância de novo; se falhar outra vez, fale com o operador."
    ),
    "Stop or delete instances, or use another account.": "Pare ou apague instâncias, ou use outra conta.",
    "Stop: this machine is given back.": "Pare: esta máquina foi devolvida.",
    "This state does not change any more: use another resource, or make a new one.": (
        "Este estado não muda mais: use outro recurso ou crie um novo."
    ),
    "Use a URL on the public internet.": "Use uma URL na internet pública.",
    "Use a key of the right kind or account.": "Use uma chave do tipo ou da conta certa.",
    "Use a new Idempotency-Key, or repeat the first body.": (
        "Use uma nova Idempotency-Key, ou repita o primeiro corpo."
    ),
    "Use a new reference, or repeat the first amount and method.": (
        "Use uma nova referência, ou repita o primeiro valor e método."
    ),
    "Use another method, or a new reference to try again.": (
        "Use outro método, ou uma nova referência para tentar de novo."
    ),
    "Use one of the ids in details.": "Use um dos ids em details.",
    "Use one of the methods in Allow.": "Use um dos métodos em Allow.",
    "Use pytorch-jupyter, or a numeric template id.": "Use pytorch-jupyter, ou um id numérico de template.",
    "Wait for the time in Retry-After, then send the same request again.": (
        "Espere o tempo em Retry-After e repita a mesma requisição."
    ),
    # What deciders say, by the state they found.
    "create a new instance": "crie uma nova instância",
    "enable the webhook first": "habilite o webhook primeiro",
    "issue a new key": "gere uma nova chave",
    "it can return to a GPU when a CPU standby carries it": (
        "ela pode voltar a uma GPU quando um standby de CPU a carrega"
    ),
    "leave the host out: the standby must be on the host that the instance runs on": (
        "omita o host: o standby deve ficar no host em que a instância roda"
    ),
    "nothing of it is running": "nada dela está rodando",
    "start it again, or delete it": "inicie-a de novo, ou apague-a",
    "switch CPU standbys on: POST /api/v1/standby/configure with enabled true": (
        "ative os standbys de CPU: POST /api/v1/standby/configure com enabled true"
    ),
    "use or rotate the key that replaced it": "use ou rotacione a chave que a substituiu",
    "wait until it is ready": "espere até que esteja pronta",
    "wait until it is running or interrupted": "espere até que esteja rodando ou interrompida",
    "wait until it is stopped": "espere até que esteja parada",
    "wait until its machine is rented, or delete it": "espere até que a máquina seja alugada, ou apague-a",
    "wait until its machine is stopped": "espere até que a máquina esteja parada",
    "wait until this operation has ended": "espere até que esta operação termine",
}


def advice_in(language: Language, english: str) -> str:
    return PORTUGUESE.get(english, english) if language == "pt" else english
