// Drives a Supabase with the vendor's own client, as a browser would, and prints what happened as JSON.
import { createClient } from "@supabase/supabase-js";

const { SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY, USER_EMAIL, USER_PASSWORD, BUCKET, FOLDER } = process.env;

const client = createClient(SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY, {
  auth: { persistSession: false, autoRefreshToken: false },
});

const refusal = (error) => error && { status: error.status, statusCode: error.statusCode, code: error.code };

function must({ data, error }) {
  if (error) throw error;
  return data;
}

const signIn = await client.auth.signInWithPassword({ email: USER_EMAIL, password: "wrong" });
const wrongPassword = { status: signIn.error?.status, code: signIn.error?.code };
const session = must(await client.auth.signInWithPassword({ email: USER_EMAIL, password: USER_PASSWORD })).session;
const user = must(await client.auth.getUser()).user;
const refreshed = must(await client.auth.refreshSession()).session;

const files = client.storage.from(BUCKET);
const blob = new Blob(["from a blob"], { type: "image/png" });
const bytes = new TextEncoder().encode("from bytes");
const form = new FormData();
form.append("cacheControl", "7");
form.append("photo", new Blob(["from a form"], { type: "image/webp" }), "photo.webp");

const uploadedBlob = must(await files.upload(`${FOLDER}/blob.png`, blob, { metadata: { made: "here" } }));
const uploadedBytes = must(
  await files.upload(`${FOLDER}/bytes.png`, bytes, { contentType: "image/png", cacheControl: "60", metadata: { n: 1 } }),
);
must(await files.upload(`${FOLDER}/form.webp`, form));
must(await files.upload(`${FOLDER}/text.txt`, "from a string"));
const duplicate = refusal((await files.upload(`${FOLDER}/blob.png`, blob)).error);
const replaced = must(await files.update(`${FOLDER}/text.txt`, "changed", { contentType: "text/plain" }));
const elsewhere = refusal((await files.upload("somebody-else/blob.png", blob)).error);

const downloaded = must(await files.download(`${FOLDER}/blob.png`));
const info = must(await files.info(`${FOLDER}/bytes.png`));
const blobInfo = must(await files.info(`${FOLDER}/blob.png`));
const formInfo = must(await files.info(`${FOLDER}/form.webp`));
const missing = refusal((await files.info(`${FOLDER}/nothing`)).error);
const exists = must(await files.exists(`${FOLDER}/blob.png`));
const missingExists = (await files.exists(`${FOLDER}/nothing`)).data;
const listed = must(await files.list(FOLDER, { sortBy: { column: "name", order: "asc" } }));
const listedV2 = must(await files.listV2({ prefix: `${FOLDER}/`, limit: 2 }));

const signed = must(await files.createSignedUrl(`${FOLDER}/blob.png`, 60)).signedUrl;
const signedReply = await fetch(signed);
const signedMany = must(await files.createSignedUrls([`${FOLDER}/blob.png`, `${FOLDER}/nothing`], 60));
const upload = must(await files.createSignedUploadUrl(`${FOLDER}/signed.png`));
const stranger = createClient(SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY).storage.from(BUCKET);
must(await stranger.uploadToSignedUrl(upload.path, upload.token, blob));

must(await files.copy(`${FOLDER}/blob.png`, `${FOLDER}/copy.png`));
must(await files.move(`${FOLDER}/copy.png`, `${FOLDER}/moved.png`));
const moved = await must(await files.download(`${FOLDER}/moved.png`)).text();
const all = must(await files.list(FOLDER)).map((entry) => `${FOLDER}/${entry.name}`);
const removed = must(await files.remove([...all, `${FOLDER}/nothing`]));
const left = must(await files.list(FOLDER));
const signOut = (await client.auth.signOut()).error;

console.log(
  JSON.stringify({
    wrongPassword,
    session: { type: session.token_type, expiresIn: session.expires_in },
    rotated: refreshed.refresh_token !== session.refresh_token,
    user: { id: user.id, email: user.email },
    uploadedBlob,
    uploadedBytes,
    duplicate,
    replaced: replaced.path,
    elsewhere,
    downloaded: { text: await downloaded.text(), type: downloaded.type },
    info: { size: info.size, contentType: info.contentType, cacheControl: info.cacheControl, metadata: info.metadata },
    blobInfo: { contentType: blobInfo.contentType, metadata: blobInfo.metadata },
    formInfo: { contentType: formInfo.contentType, cacheControl: formInfo.cacheControl },
    missing,
    exists,
    missingExists,
    listed: listed.map((entry) => [entry.name, entry.metadata.mimetype]),
    listedV2: { names: listedV2.objects.map((found) => found.name), hasNext: listedV2.hasNext },
    signed: { status: signedReply.status, text: await signedReply.text() },
    signedMany: signedMany.map((entry) => [entry.path, entry.error !== null]),
    moved,
    removed: removed.map((row) => row.name).sort(),
    left: left.length,
    signOut,
  }),
);
process.exit(0); // the client keeps timers
