// A program with the types that are generated from the OpenAPI document, for `tsc --strict`.
import type { components, operations, paths } from "./openapi";

type Schemas = components["schemas"];
type Answer<Operation extends keyof operations, Status extends number> =
  operations[Operation]["responses"] extends Record<Status, { content: { "application/json": infer Content } }>
    ? Content
    : never;

async function call<Content>(
  url: string,
  path: keyof paths,
  connection: string,
  init?: RequestInit,
): Promise<Content> {
  const answer = await fetch(url + path.replace("{connection_id}", connection), init);
  if (!answer.ok) {
    const problem = (await answer.json()) as Schemas["Problem"];
    throw new Error(`${problem.code}: ${problem.detail} (${problem.type})`);
  }
  return (await answer.json()) as Content;
}

export async function rewind(url: string, connection: string): Promise<string | null | undefined> {
  const state = await call<Answer<"get_connection_state", 200>>(
    url,
    "/connections/{connection_id}/state",
    connection,
  );
  const body: Schemas["UpdateState"] = {
    connection_id: connection,
    merge_patch: { cursor: "2020" },
    expected_version: state.version,
    dry_run: false,
    propose: false,
    then_sync: false,
    allow_resync: false,
  };
  const update = await call<Answer<"update_state", 202>>(url, "/state/update", connection, {
    method: "POST",
    headers: { "Content-Type": "application/json", Prefer: "respond-async" },
    body: JSON.stringify(body),
  });
  return update.workflow_id;
}
