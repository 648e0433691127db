/**
 * Takes what the environment holds out of what a receiver answers, before it gets into an order: receivers echo requests, in answers
 * and in errors, as they came or in another form. In its place stands `[env.NAME]`.
 *
 * A value of less than six characters stays: `1`, `eu` and `8080` are in any answer by chance, and no secret is so short.
 */
export interface Secrets {
  /** A text without them. */
  readonly redact: (text: string) => string;
  /** JSON without them, in its texts, numbers and keys. What has none is returned as it is. */
  readonly redactJson: (json: unknown) => unknown;
}

const SECRET_CHARS_MIN = 6;

/** What looks like a token, and no word, from so many characters on. */
const TOKEN_CHARS_MIN = 8;
const PATH_TOKEN_CHARS_MIN = 12;
const LONG_TOKEN_CHARS = 20;
const TOKENS_MAX = 200;

const ADDRESS = /^[a-z][a-z0-9+.-]*:\/\//i;

/** What stands before credentials. */
const SCHEME =
  /^(?:bearer|basic|digest|token|jwt|api-?key|oauth|negotiate|dpop|hawk|aws4?-[\w-]+|shared\w*|[\w-]*key|[\w-]*token)$/i;

/** Names of parameters that hold secrets. */
const TELLING = /key|token|secret|sig|pass|pwd|auth|cred|code|hash/i;

/** A regular expression with longer texts in it takes long to compile, or is refused: those are looked for as they are. */
const FORM_CHARS_MAX = 500;

const known = new WeakMap<Readonly<Record<string, string>>, Secrets>();

/** @param env the variables that a file names; it does not change any more */
export function secretsOf(env: Readonly<Record<string, string>>): Secrets {
  let secrets = known.get(env);
  if (secrets === undefined) {
    secrets = findSecrets(env);
    known.set(env, secrets);
  }
  return secrets;
}

const NONE: Secrets = { redact: (text) => text, redactJson: (json) => json };

function findSecrets(env: Readonly<Record<string, string>>): Secrets {
  const names = new Map<string, string>();
  const long = new Map<string, string>();
  const numbers = new Map<number, string>();
  for (const [name, value] of Object.entries(env)) {
    // A file that a variable was read from often ends in a line break, which receivers take off.
    const trimmed = value.trim();
    const parts = [value, trimmed, ...addressParts(trimmed), ...tokensOf(trimmed)].filter(
      (part) => part.length >= SECRET_CHARS_MIN,
    );
    for (const form of parts.flatMap(formsOf)) {
      if (form.length > FORM_CHARS_MAX) long.set(form, name);
      else names.set(form.toLowerCase(), name);
    }
    if (value.length >= SECRET_CHARS_MIN && String(Number(value)) === value) numbers.set(Number(value), name);
  }
  if (names.size === 0 && long.size === 0) return NONE;
  // The longest first: one may be the beginning of another. Hosts, hexadecimal digits and names of headers come in either case.
  const forms = Array.from(names.keys()).toSorted((one, other) => other.length - one.length);
  const pattern = new RegExp(
    forms.map((form) => form.replaceAll(/[.*+?^${}()|[\]\\/-]/g, String.raw`\$&`)).join("|"),
    "gi",
  );
  const redact = (text: string): string => {
    let redacted = text;
    for (const [form, name] of long) redacted = redacted.replaceAll(form, () => `[env.${name}]`);
    if (forms.length === 0) return redacted;
    return redacted.replace(pattern, (found) => `[env.${names.get(found.toLowerCase()) ?? "?"}]`);
  };
  const redactJson = (json: unknown): unknown => {
    if (typeof json === "string") return redact(json);
    if (typeof json === "number") return numbers.has(json) ? `[env.${numbers.get(json)}]` : json;
    if (typeof json !== "object" || json === null) return json;
    if (Array.isArray(json)) {
      const items = json.map(redactJson);
      return items.every((item, index) => item === json[index]) ? json : items;
    }
    const fields = Object.entries(json) as [string, unknown][];
    const redacted = fields.map(([key, value]) => [redact(key), redactJson(value)] as const);
    const isSame = redacted.every(([key, value], index) => key === fields[index]?.[0] && value === fields[index][1]);
    return isSame ? json : Object.fromEntries(redacted);
  };
  return { redact, redactJson };
}

/**
 * What is secret about an address: where it is, and who may go there. A host that is one plain word (`payments`) is so only with its port or
 * as a host, as the word may be anywhere.
 */
function addressParts(value: string): string[] {
  const url = ADDRESS.test(value) && URL.canParse(value) ? new URL(value) : null;
  if (url === null) return [];
  const { host, hostname, port, username, password, pathname, search, searchParams } = url;
  const isWord = !/[.:]/.test(hostname);
  return [
    ...(port === "" ? [] : [host]),
    isWord ? `//${hostname}` : hostname.replaceAll(/^\[|\]$/g, ""),
    ...[username, password].flatMap((part) => [part, decode(part)]),
    ...(password === "" ? [] : [`${decode(username)}:${decode(password)}`]),
    search,
    ...Array.from(searchParams)
      .filter(([name, part]) => TELLING.test(name) || isToken(part, TOKEN_CHARS_MIN))
      .map(([, part]) => part),
    // Most of a path is words that answers are made of.
    ...pathname
      .split("/")
      .flatMap((part) => [part, decode(part)])
      .filter((part) => isToken(part, PATH_TOKEN_CHARS_MIN)),
  ];
}

/** What is secret in a text of several words, each of which may come back alone: `Bearer TOKEN`, `id=1; key=TOKEN`, the lines of a key. */
function tokensOf(value: string): string[] {
  if (ADDRESS.test(value) && URL.canParse(value)) return [];
  const [scheme = "", credentials = "", ...more] = value.split(/\s+/);
  const isScheme = more.length === 0 && SCHEME.test(scheme);
  const decoded = Buffer.from(credentials, "base64").toString();
  const words = value
    .split(/[\s,:;&=|"'<>{}[\]]+/)
    .slice(0, TOKENS_MAX)
    .filter((word) => word !== value && isToken(word, TOKEN_CHARS_MIN));
  return [...words, ...(isScheme ? [credentials, ...(decoded.includes(":") ? [decoded] : [])] : [])];
}

/** Whether it is hardly a word: it has digits and letters, or is long. */
function isToken(text: string, charsMin: number): boolean {
  return text.length >= LONG_TOKEN_CHARS || (text.length >= charsMin && /\d/.test(text) && /[a-z]/i.test(text));
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The same text as it may come back. */
function formsOf(value: string): string[] {
  const inJson = (text: string): string => JSON.stringify(text).slice(1, -1);
  const inAscii = (text: string): string =>
    text.replaceAll(/[^\x20-\x7e]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const encoded = encodeURIComponent(value.toWellFormed());
  const bytes = Buffer.from(value, "utf8");
  return [
    value,
    inJson(value),
    inJson(inJson(value)),
    inAscii(inJson(value)),
    value.replaceAll("/", String.raw`\/`),
    encoded,
    encoded.replaceAll(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16)}`),
    encoded.replaceAll("%20", "+"),
    encodeURIComponent(encoded),
    encodeURI(value.toWellFormed()),
    ...["&#39;", "&#x27;", "&apos;", "'"].map((quote) =>
      value
        .replaceAll("&", "&amp;")
        .replaceAll("<", "&lt;")
        .replaceAll(">", "&gt;")
        .replaceAll('"', "&quot;")
        .replaceAll("'", quote),
    ),
    bytes.toString("hex"),
    bytes.toString("hex").replaceAll(/../g, "%$&"),
    ...base64Within(Buffer.from(bytes.toString("base64").replaceAll("=", "")), 0),
    ...[0, 1, 2].flatMap((offset) => base64Within(bytes, offset)),
  ];
}

/** The characters of base64 that these bytes alone decide, where `offset` bytes stand before them. */
function base64Within(bytes: Buffer, offset: number): string[] {
  const [start, end] = [Math.ceil((offset * 8) / 6), Math.floor(((offset + bytes.length) * 8) / 6)];
  const text = Buffer.concat([Buffer.alloc(offset), bytes])
    .toString("base64")
    .slice(start, end);
  return text.length < SECRET_CHARS_MIN ? [] : [text, text.replaceAll("+", "-").replaceAll("/", "_")];
}
