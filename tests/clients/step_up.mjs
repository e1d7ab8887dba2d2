// An agent on the TypeScript SDK that can be asked: node step_up.mjs SDK URL TOKEN TOOL ARGUMENTS ACTION
// Prints what it was asked, and the result, as JSON lines.
const [sdk, url, token, tool, args, action] = process.argv.slice(2);
const { Client } = await import(`${sdk}/dist/esm/client/index.js`);
const { StreamableHTTPClientTransport } = await import(`${sdk}/dist/esm/client/streamableHttp.js`);
const { ElicitRequestSchema } = await import(`${sdk}/dist/esm/types.js`);

const show = (facts) => console.log(JSON.stringify(facts));
const capabilities = action === "none" ? {} : { elicitation: { form: {}, url: {} } };
const client = new Client({ name: "step-up", version: "1" }, { capabilities });
if (action !== "none") {
  client.setRequestHandler(ElicitRequestSchema, async (request) => {
    show({ asked: request.params.mode ?? "form", url: request.params.url ?? "" });
    return { action };
  });
}
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { authorization: `Bearer ${token}` } } });
await client.connect(transport);
const result = await client.callTool({ name: tool, arguments: JSON.parse(args) });
show({ error: result.isError ?? false, text: result.content?.[0]?.text ?? "", meta: result._meta ?? {} });
await client.close();
