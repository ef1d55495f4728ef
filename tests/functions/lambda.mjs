// A handler for the Lambda client in Node: it rings the bell of the test and does what the event says.
import net from 'node:net';
import fs from 'node:fs/promises';

const me = () => `${process.env.QUELL_INSTANCE_ID}/${process.pid}`;

export async function handler(event, context) {
    const known = {
        request: context.awsRequestId, tag: event.tag ?? null, me: me(),
        client: process.env.AWS_LAMBDA_MAX_CONCURRENCY ?? 'one',
    };
    return DO[event.do](event, context, known);
}

const DO = {
    async echo(event, context, known) {
        await fs.readFile('/proc/self/status'); // by a thread of the pool, beside the waiting poll
        return {
            ...known, size: (event.pad ?? '').length, urn: context.invokedFunctionArn,
            left: context.getRemainingTimeInMillis(), memory: context.memoryLimitInMB,
            stream: context.logStreamName,
        };
    },
    async wait(event, context, known) {
        for (const child of event.children ?? []) await invoke(child, context);
        const told = await ring(event, known);
        if (told === '') throw new Error('the test went away');
        return { ...known, told };
    },
    async loop(event, context, known) {
        await ring(event, known);
        return known;
    },
    async fail(event) { throw new ValueError(event.words ?? 'as the test asked'); },
    async big(event) { return 'x'.repeat(event.bytes); },
};

class ValueError extends Error { constructor(words) { super(words); this.name = 'ValueError'; } }

// Says where it is; resolves with what it is told, or with nothing at the end of the line.
function ring(event, known) {
    return new Promise((resolve, reject) => {
        const line = net.connect({ path: event.bell });
        line.on('connect', () => line.write(JSON.stringify(known) + '\n'));
        line.on('data', (told) => { line.destroy(); resolve(told.toString()); });
        line.on('end', () => resolve(''));
        line.on('error', reject);
    });
}

async function invoke(event, context) {
    const url = `${process.env.QUELL_API_ENDPOINT}/v2/default/fgs/functions/${event.function}/invocations-async`;
    const headers = {
        'X-Auth-Token': context.clientContext.custom['quell-token'], 'Content-Type': 'application/json',
    };
    const answer = await fetch(url, { method: 'POST', headers, body: JSON.stringify(event) });
    if (answer.status !== 202) throw new Error(`the child was answered with ${answer.status}`);
}

export const stream = awslambda.streamifyResponse(async (event, out) => {
    if (event.prelude) {
        out = awslambda.HttpResponseStream.from(out, { statusCode: 201, headers: { 'x-of': 'stream' } });
    }
    for (let at = 0; at < event.pieces; at++) {
        out.write(`piece ${at};`);
        await new Promise((resolve) => setImmediate(resolve));
    }
    if (event.fail) throw new ValueError('in the middle of the stream');
    out.end();
    await new Promise((resolve) => out.on('finish', resolve));
});
