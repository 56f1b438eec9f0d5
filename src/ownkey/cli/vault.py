"""``ownkey vault``: the keys that encrypt the provider keys.

Database and cipher are loaded by the commands that need them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from cyclopts import App, Parameter

from ownkey.access import Actor
from ownkey.cli.output import Json, show
from ownkey.errors import InvalidRequest, Unavailable

app = App(name="vault", help="The keys that encrypt the provider keys.")


@app.command
async def rotate(*, json: Json = False) -> None:
    """Wrap every stored key with the first key encryption key, while calls go on.

    To rotate: put a new key (`ownkey vault new-key`) in front of the old ones, restart every node, run this, and
    when nothing failed take the old keys out. It can be stopped at any moment and run again. Exits 1 if a stored key
    could not be opened.
    """
    from ownkey.cli.installation import installation
    from ownkey.vault import rotation

    async with installation() as here:
        result = await rotation.rotate(here.db, await here.keyring(), Actor.operator())
    show(asdict(result), json)
    if result.failed:
        raise Unavailable(f"{result.failed} stored keys could not be opened; they need a key that is not in the ring.")


@app.command
async def status(*, json: Json = False) -> None:
    """Show which key encryption keys the stored keys need, and whether the vault is open."""
    from ownkey.cli.installation import installation
    from ownkey.vault import rotation

    async with installation() as here:
        found = await rotation.status(here.db, await here.keyring())
    counts = [{"kek_id": kek, "keys": number} for kek, number in found.counts.items()]
    document = {
        "open": found.locked_reason is None,
        "locked_reason": found.locked_reason,
        "primary_id": found.primary_id,
        "stored_keys": dict(found.counts) if json else [f"{c['keys']} with {c['kek_id']}" for c in counts],
        "unreadable": found.unreadable,
    }
    show(document, json)


@app.command
def new_key(
    *,
    key_service: Annotated[
        str,
        Parameter(
            help="Wrap it with a key of a key service: `aws-kms://arn:aws:kms:…`, `gcp-kms://projects/…` or "
            "`hcvault://transit/keys/name`."
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Print a new key encryption key, for `OWNKEY_VAULT_KEYS` or a line of `OWNKEY_VAULT_KEYS_FILE`.

    It is kept nowhere else: without it the provider keys it seals cannot be opened again.
    """
    from ownkey.vault.kek import new_kek
    from ownkey.vault.key_services import KeyServiceFailed

    try:
        text = new_kek(key_service)
    except KeyServiceFailed as error:
        raise InvalidRequest(f"The key {error}.") from error
    if json:
        show({"key": text}, json)
    else:
        print(text)
