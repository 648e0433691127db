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
/** Of so many parts of a value all forms are known; of more than that the part itself. */
const PARTS_OF_ALL_FORMS_MAX = 200;
const PARTS_MAX = 10_000;

const ADDRESSES = /(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,30}:\/\/[^\s"'<>]+/gi;

/** `//user:password@`, also in addresses of several hosts, which are no URL. */
const CREDENTIALS = /\/\/([^\s/:@]{0,500}):([^\s/@]{1,1000})@/g;

/** `name=value` and `"name": "value"`, up to what separates it from the next: a password may hold some of that. */
const PAIR = /(?<![\w-])([\w-]{1,100})["']?\s{0,20}[=:]\s{0,20}(?:"([^"]*)"|'([^']*)'|([^\s;&]+))/g;

/** What stands before credentials. */
const SCHEME =
  /^(?:bearer|basic|digest|token|jwt|api-?key|oauth|negotiate|dpop|hawk|aws4?-[\w-]+|shared\w*|[\w-]*key|[\w-]*token)$/i;

/** Names of an address's parameters that hold secrets. */
const TELLING_PARAMETER = /key|token|secret|sig|pass|pwd|auth|cred|code|hash/i;

/** Names of what is a secret, whatever it looks like; and of what is one where it looks like a token. By words: a `keyspace` is none. */
const TELLING =
  /secret|password|passwd|passphrase|(?:^|[_.-])(?:(?:auth|access|api)?tokens?|pass(?:code)?|pwd|pw|pin|cred(?:ential)?s?|authorization|_auth|(?:api|access|private|account|shared|encryption|signing)[_.-]?key|sess(?:ion)?(?:[_.-]?id)?|sid)\d*(?:$|[_.-])/i;
const HINTING = /(?:^|[_.-])(?:key|code|auth|sig|signature|hash|id)(?:$|[_.-])/i;

/** How deep JSON in a variable is looked into. */
const NESTED_MAX = 4;

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
  const longNames = new Map<string, string>();
  const numbers = new Map<number, string>();
  for (const [name, value] of Object.entries(env)) {
    const all = [...partsOf(value), ...(isTelling(name) || /auth/i.test(name) ? userAndPassword(value.trim()) : [])];
    const parts = Array.from(new Set(all)).filter((part) => part.length >= SECRET_CHARS_MIN);
    for (const [index, part] of parts.slice(0, PARTS_MAX).entries()) {
      if (NUMBER.test(part) && digitsOf(Number(part)) >= SECRET_CHARS_MIN) numbers.set(Number(part), name);
      for (const form of index < PARTS_OF_ALL_FORMS_MAX ? formsOf(part) : [part]) {
        if (form.length > FORM_CHARS_MAX) longNames.set(form, name);
        else names.set(form.toLowerCase(), name);
      }
    }
  }
  if (names.size === 0 && longNames.size === 0) return NONE;
  const long = Array.from(longNames, ([form, name]) => ({ form, low: form.toLowerCase(), name })).toSorted(
    (one, other) => other.form.length - one.form.length,
  );
  const shortest = long.at(-1)?.form.length ?? Number.POSITIVE_INFINITY;
  // The longest first: one may be the beginning of another. Hosts, hexadecimal digits and names of headers come in either case.
  const forms = Array.from(names.keys()).toSorted((one, other) => other.length - one.length);
  const pattern = new RegExp(
    forms.map((form) => form.replaceAll(/[.*+?^${}()|[\]\\/-]/g, String.raw`\$&`)).join("|"),
    "gi",
  );
  const redact = (text: string): string => {
    let redacted = text;
    if (text.length >= shortest) redacted = withoutLong(text, long);
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
    return isSame ? json : withAll(redacted);
  };
  return { redact, redactJson };
}

/** An object of these fields, also where several keys have become the same. */
function withAll(fields: readonly (readonly [string, unknown])[]): object {
  const made = new Map<string, unknown>();
  const counts = new Map<string, number>();
  for (const [key, value] of fields) {
    let free = key;
    let count = counts.get(key) ?? 1;
    while (made.has(free)) free = `${key} (${++count})`;
    counts.set(key, count);
    made.set(free, value);
  }
  return Object.fromEntries(made);
}

/** A JSON Web Token: who reads one of its parts has what is in it. */
const WEB_TOKEN = /(?:^|\s)eyJ[\w-]+\.[\w-]+\.[\w-]*$/;

const NUMBER = /^[+-]?\d+(\.\d+)?$/;

function digitsOf(number: number): number {
  return String(Math.abs(number)).length;
}

interface LongForm {
  readonly form: string;
  readonly low: string;
  readonly name: string;
}

/** In either case, where that changes no lengths. */
function withoutLong(text: string, forms: readonly LongForm[]): string {
  let [rest, low] = [text, text.toLowerCase()];
  for (const { form, low: lowForm, name } of forms) {
    if (form.length > rest.length) continue;
    const isSafe = low.length === rest.length && lowForm.length === form.length;
    const [searched, wanted] = isSafe ? [low, lowForm] : [rest, form];
    let at = searched.indexOf(wanted);
    if (at < 0) continue;
    let [result, from] = ["", 0];
    for (; at >= 0; at = searched.indexOf(wanted, from)) {
      result += `${rest.slice(from, at)}[env.${name}]`;
      from = at + form.length;
    }
    rest = result + rest.slice(from);
    low = rest.toLowerCase();
  }
  return rest;
}

/** A value, and all of it that is secret and may come back alone. */
function partsOf(value: string, nested = 0): string[] {
  // A file that a variable was read from often ends in a line break, which receivers take off.
  const trimmed = value.trim();
  const unquoted = /^(["'`])(.*)\1$/s.exec(trimmed)?.[2] ?? trimmed;
  const texts = textsIn(unquoted);
  const isJson = texts.length > 0;
  const parts = [
    value,
    trimmed,
    unquoted,
    ...addressParts(trimmed, nested === 0 && !isJson),
    ...(isJson ? [] : [...credentialsOf(unquoted), ...tokensOf(unquoted)]),
  ];
  if (nested === NESTED_MAX) return parts;
  // A key of several lines is often written in one, and a whole file of credentials is JSON.
  const unescaped = unquoted.replaceAll(/\\r?\\n|\\n/g, "\n");
  if (unescaped !== unquoted) parts.push(...partsOf(unescaped, nested + 1));
  for (const [key, text] of texts) {
    const isSecret = isNamedSecret(key, text) || (isToken(text, TOKEN_CHARS_MIN) && !isAddress(text));
    parts.push(...(isSecret ? partsOf(text, nested + 1) : addressParts(text, false)));
    if (isTelling(key) || /auth/i.test(key)) parts.push(...userAndPassword(text));
  }
  return parts;
}

/** The texts and numbers of JSON, with their keys. */
function textsIn(json: string): (readonly [key: string, text: string])[] {
  if (!/^[[{]/.test(json)) return [];
  const found: (readonly [string, string])[] = [];
  try {
    JSON.parse(json, (key, value: unknown) => {
      if (typeof value === "string" || typeof value === "number") found.push([key, String(value)]);
      return value;
    });
  } catch {
    return []; // it only looks like it
  }
  return found;
}

/**
 * What is secret about addresses: where it is, and who may go there. A host that is one plain word (`payments`) is so only with its port or
 * as a host, as the word may be anywhere.
 */
function addressParts(value: string, withHosts: boolean): string[] {
  const found = Array.from(value.matchAll(ADDRESSES), ([address]) => address);
  return found.flatMap((address) => {
    const url = URL.parse(address) ?? URL.parse(address.replace(/[,;)\]}].*$/s, ""));
    if (url === null) return [];
    return withHosts ? [...hostsOf(url), ...partsOfUrl(url)] : partsOfUrl(url);
  });
}

function hostsOf({ host, hostname, port }: URL): string[] {
  const isWord = !/[.:]/.test(hostname);
  return [...(port === "" ? [] : [host]), isWord ? `//${hostname}` : hostname.replaceAll(/^\[|\]$/g, "")];
}

function partsOfUrl({ username, password, pathname, search, searchParams, hash }: URL): string[] {
  // With a password, a user that is a word is no secret, and may be anywhere.
  const user = password === "" || isToken(decode(username), TOKEN_CHARS_MIN) ? username : "";
  return [
    ...[user, password].flatMap((part) => [part, decode(part)]),
    ...(password === "" ? [] : [`${decode(username)}:${decode(password)}`]),
    search,
    ...Array.from(searchParams)
      .filter(([name, part]) => TELLING_PARAMETER.test(name) || isToken(part, TOKEN_CHARS_MIN))
      .map(([, part]) => part),
    // Most of a path is words that answers are made of.
    ...[...pathname.split("/"), hash.slice(1)]
      .flatMap((part) => [part, decode(part)])
      .filter((part) => isToken(part, PATH_TOKEN_CHARS_MIN)),
  ];
}

/** What is a secret by what stands before it: `Bearer TOKEN`, `password=SECRET`, `user:SECRET`, `//user:SECRET@host`, also in base64. */
function credentialsOf(value: string): string[] {
  const [scheme = "", credentials = "", ...more] = value.split(/\s+/);
  const isScheme = more.length === 0 && credentials !== "" && SCHEME.test(scheme);
  const pairs = Array.from(value.matchAll(PAIR)).flatMap(([, name = "", ...texts]) => {
    const text = texts.find((each) => each !== undefined) ?? "";
    return isNamedSecret(name, text) ? [text, ...text.split(/[,"')\]}]/).slice(0, 1)] : [];
  });
  const alone = isScheme ? credentials : value;
  const decoded = /^[\w+/-]{8,}={0,2}$/.test(alone) ? Buffer.from(alone, "base64").toString() : "";
  const isPair = decoded.includes(":") && !/\p{C}/u.test(decoded);
  return [
    ...(isScheme ? [credentials] : []),
    ...pairs,
    ...Array.from(value.matchAll(CREDENTIALS)).flatMap(([, user = "", password = ""]) => [
      password,
      decode(password),
      `${decode(user)}:${decode(password)}`,
    ]),
    ...(isPair ? [decoded, ...userAndPassword(decoded)] : []),
  ];
}

/** Whether a name says that something is a secret: `password`, `apiKey`, and `code` where it looks like a token. */
function isNamedSecret(name: string, text: string): boolean {
  return isTelling(name) || (HINTING.test(inWords(name)) && isToken(text, TOKEN_CHARS_MIN));
}

function isTelling(name: string): boolean {
  return TELLING.test(inWords(name));
}

function inWords(name: string): string {
  return name.replaceAll(/([a-z])([A-Z])/g, "$1_$2").replaceAll(/([A-Z])([A-Z][a-z])/g, "$1_$2");
}

/** `user:password`, and nothing else that has a colon: no address, no host with its port. */
function userAndPassword(text: string): string[] {
  const password = /^[^\s:/@]+:([^\s:/]+)$/.exec(text)?.[1];
  return password === undefined || /^\d{1,5}$/.test(password) ? [] : [password];
}

/** What is secret in a text of several words, each of which may come back alone: `id=1; key=TOKEN`, the lines of a key. */
function tokensOf(value: string): string[] {
  const separators = WEB_TOKEN.test(value) ? /[\s.]+/ : /[\s,:;&=|"'<>{}[\]]+/;
  const words = value.split(separators).filter((word) => word !== value && isToken(word, TOKEN_CHARS_MIN));
  return isAddress(value) ? [] : words;
}

/** Whether it is hardly a word: it has digits and letters, or is long. */
function isToken(text: string, charsMin: number): boolean {
  return text.length >= LONG_TOKEN_CHARS || (text.length >= charsMin && /\d/.test(text) && /[a-z]/i.test(text));
}

function isAddress(text: string): boolean {
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(text) && URL.canParse(text);
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** What other ways of percent-encoding encode, too, beside what JavaScript does: RFC 3986, forms, and what is most careful. */
const ENCODED_TOO = [/[!'()*]/g, /[!'()~]/g, /[!'()*~]/g];

/** The same text as it may come back. */
function formsOf(value: string): string[] {
  const inJson = (text: string): string => JSON.stringify(text).slice(1, -1);
  const inUnicode = (char: string): string => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
  const inAscii = (text: string): string => text.replaceAll(/[^\x20-\x7e]/g, inUnicode);
  const inPercent = (char: string): string => `%${char.charCodeAt(0).toString(16)}`;
  const encoded = encodeURIComponent(value.toWellFormed());
  const bytes = Buffer.from(value, "utf8");
  return [
    value,
    inJson(value),
    inJson(inJson(value)),
    inAscii(inJson(value)),
    value.replaceAll("/", String.raw`\/`),
    inAscii(inJson(value)).replaceAll("/", String.raw`\/`),
    // As Go and others write it, for pages.
    inJson(value).replaceAll(/[<>&]/g, inUnicode),
    inAscii(inJson(value)).replaceAll(/[<>&'/]/g, inUnicode),
    // As Python and others write it, between single quotes.
    value.replaceAll(/[\\']/g, String.raw`\$&`),
    ...[encoded, ...ENCODED_TOO.map((chars) => encoded.replaceAll(chars, inPercent))]
      .flatMap((text) => [text, text.replaceAll("%2F", "/")])
      .flatMap((text) => [text, text.replaceAll("%20", "+")]),
    value.replaceAll("/", "%2F"),
    encodeURIComponent(encoded),
    encodeURI(value.toWellFormed()),
    ...["&#39;", "&#x27;", "&apos;", "'"].flatMap((quote) =>
      ["&quot;", "&#34;"].map((quotes) => inHtml(value, quote, quotes)),
    ),
    value.replaceAll(/[<>&"']/g, (char) => `&#${char.charCodeAt(0)};`),
    value.replaceAll(/[<>&"']/g, (char) => `&#x${char.charCodeAt(0).toString(16)};`),
    bytes.toString("latin1"),
    bytes.toString("hex"),
    bytes.toString("hex").replaceAll(/../g, "%$&"),
    bytes.toString("hex").replaceAll(/..(?=.)/g, "$&:"),
    bytes.toString("hex").replaceAll(/..(?=.)/g, "$& "),
    ...base64Within(Buffer.from(bytes.toString("base64").replaceAll("=", "")), 0),
    ...[0, 1, 2].flatMap((offset) => base64Within(bytes, offset)),
    // MIME's lines have 76 characters, PEM's 64.
    ...[76, 64].flatMap((width) => ["\r\n", "\n"].map((end) => inLines(bytes.toString("base64"), width, end))),
  ];
}

function inHtml(text: string, quote: string, quotes: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', quotes)
    .replaceAll("'", quote);
}

function inLines(text: string, width: number, end: string): string {
  return Array.from({ length: Math.ceil(text.length / width) }, (_, at) =>
    text.slice(at * width, (at + 1) * width),
  ).join(end);
}

/** The characters of base64 that these bytes alone decide, where `offset` bytes stand before them; as they are, in a url, and in PHP's JSON. */
function base64Within(bytes: Buffer, offset: number): string[] {
  const [start, end] = [Math.ceil((offset * 8) / 6), Math.floor(((offset + bytes.length) * 8) / 6)];
  const text = Buffer.concat([Buffer.alloc(offset), bytes])
    .toString("base64")
    .slice(start, end);
  if (text.length < SECRET_CHARS_MIN) return [];
  return [
    text,
    text.replaceAll("+", "-").replaceAll("/", "_"),
    text.replaceAll("+", "%2b").replaceAll("/", "%2f"),
    text.replaceAll("+", "%2b"),
    text.replaceAll("/", String.raw`\/`),
  ];
}
