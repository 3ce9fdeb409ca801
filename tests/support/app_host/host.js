// A host as small as can be: the official client and the official bridge, and nothing of our own
// between them. It notes what the App says.

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { AppBridge, PostMessageTransport, RESOURCE_MIME_TYPE, getToolUiResourceUri } from "@modelcontextprotocol/ext-apps/app-bridge";

const INFO = { name: "host", version: "1" };
const frame = document.getElementById("app");
const said = [];
let client;
let bridge;

addEventListener("message", ({ source, data }) => {
  if (source === frame.contentWindow) said.push(data);
});

function heard(method) {
  return new Promise((resolve) => {
    addEventListener("message", function listen({ source, data }) {
      if (source !== frame.contentWindow || data.method !== method) return;
      removeEventListener("message", listen);
      resolve();
    });
  });
}

async function connect(server) {
  client = new Client(INFO, {
    capabilities: { extensions: { "io.modelcontextprotocol/ui": { mimeTypes: [RESOURCE_MIME_TYPE] } } },
    versionNegotiation: { mode: "auto" },
  });
  await client.connect(new StreamableHTTPClientTransport(new URL("/mcp", server)));
}

async function showApp(name, sandbox, theme) {
  const { tools } = await client.listTools();
  const uri = getToolUiResourceUri(tools.find((tool) => tool.name === name));
  const { contents: [{ mimeType, text, _meta }] } = await client.readResource({ uri });
  if (mimeType !== RESOURCE_MIME_TYPE) throw new Error(mimeType);
  await bridge?.close();
  const isReady = heard("ui/notifications/sandbox-proxy-ready");
  frame.src = sandbox;
  await isReady;
  bridge = new AppBridge(client, INFO, { serverTools: {}, updateModelContext: { text: {} } }, { hostContext: { theme } });
  bridge.onupdatemodelcontext = async () => ({});
  bridge.onsizechange = ({ height }) => { frame.style.height = `${height}px`; };
  const isInitialized = new Promise((resolve) => { bridge.oninitialized = resolve; });
  await bridge.connect(new PostMessageTransport(frame.contentWindow, frame.contentWindow));
  await bridge.sendSandboxResourceReady({ html: text, csp: _meta?.ui?.csp });
  await isInitialized;
}

window.host = {
  said,
  connect,
  // Calls the tool as for a model, and shows its result in a new App.
  async call(name, args, sandbox, theme) {
    await showApp(name, sandbox, theme);
    await bridge.sendToolInput({ arguments: args });
    const result = await client.callTool({ name, arguments: args });
    await bridge.sendToolResult(result);
    return result;
  },
  // Shows a result that no server has sent.
  async show(name, result, sandbox) {
    await showApp(name, sandbox, "light");
    await bridge.sendToolInput({ arguments: { connection_id: "evil_one" } });
    await bridge.sendToolResult(result);
  },
  setTheme(theme) {
    bridge.setHostContext({ theme });
  },
};
