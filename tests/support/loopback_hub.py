"""A stand-in for the HTTP API of the Hugging Face Hub, on 127.0.0.1: what the real clients talk to in our tests.

Standard library only; repositories live in memory, nothing leaves the machine. It answers what `push_to_hub`,
`from_pretrained`, `pipeline`, `create_repo`, `upload_file`, `upload_folder`, `update_repo_settings`,
`super_squash_history`, `snapshot_download`, `load_dataset` and `evaluate.load` of a Space ask for, with private and
gated repositories; everything else gets 404 with `X-Error-Code: NotImplementedByLoopbackHub`. No LFS, xet, pull
requests, tags or moves.

huggingface_hub reads its environment variables when it is imported, so give them to a child process:

    with LoopbackHub() as hub:
        subprocess.run([sys.executable, "push.py"], env={**os.environ, **hub.environment(tmp_path)}, check=True)
        assert "model.safetensors" in hub.files("tester/explainer")

Repository ids always have an owner ("tester" when the client gives none). `hub.log` lists (method, path).
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

OWNER = "tester"
TOKEN = "hf_" + "x" * 30  # of the owner of every repository
STRANGER_TOKEN = "hf_" + "y" * 30  # of somebody without access to private and gated repositories
KINDS = "models|datasets|spaces"
ACTIONS = "preupload|commit|branch|tree|refs|revision|settings|super-squash"
WRITES = {"preupload": "POST", "commit": "POST", "branch": "POST", "super-squash": "POST", "settings": "PUT"}
URL_PREFIX = {"model": "", "dataset": "datasets/", "space": "spaces/"}
DATE = "2026-01-01T00:00:00.000Z"


def blob_id(data):
    """Git's object id of a file, which the Hub also uses as ETag."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class HubError(Exception):
    """Answered to the client as an HTTP status with the headers by which its library tells errors apart."""

    def __init__(self, status, code=None, message=None, headers=()):
        super().__init__(message or code)
        self.status, self.headers = status, {"X-Error-Message": message or code, **dict(headers)}
        if code:
            self.headers["X-Error-Code"] = code


class LoopbackHub:
    """`repos[type, id]` = {"commits": {sha: {path: bytes}}, "refs": {branch: sha}, "private": bool, "gated": bool}."""

    def __init__(self):
        self.repos, self.log = {}, []
        self.lock, self.count = threading.Lock(), 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home):
        """Environment variables of a client; `home` is an empty folder for its cache."""
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}

    def files(self, repo_id, revision="main", repo_type="model"):
        """{path: bytes} of one revision (branch or commit)."""
        repo = self.repos[repo_type, repo_id]
        return dict(repo["commits"][self.resolve(repo, revision)])

    def resolve(self, repo, revision):
        sha = revision if revision in repo["commits"] else repo["refs"].get(revision)
        if sha is None:
            raise HubError(404, "RevisionNotFound")
        return sha

    def commit(self, repo, branch, files, message=""):
        self.count += 1
        content = sorted((path, blob_id(data)) for path, data in files.items())
        sha = hashlib.sha1(json.dumps([self.count, branch, message, content]).encode()).hexdigest()
        repo["commits"][sha] = files
        repo["refs"][branch] = sha
        return sha


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes: 40 ms per request otherwise
    hub = None

    def log_message(self, *args):
        pass

    def send(self, status, body=b"", headers=(), content_type="application/json"):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            data += self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                return data

    def handle_any(self):
        body = self.body()
        url = urlsplit(self.path)
        self.hub.log.append((self.command, url.path))
        try:
            with self.hub.lock:
                self.route(url.path, body)
        except HubError as error:
            self.send(error.status, {"error": str(error)}, error.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def user(self):
        """Who asks: the owner, "stranger" or None without a token."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if not token:
            return None
        known = {TOKEN: OWNER, STRANGER_TOKEN: "stranger"}
        if token not in known:
            raise HubError(401, message="Invalid credentials in Authorization header")
        return known[token]

    def find(self, repo_type, repo_id, contents):
        """The repository, or the real Hub's refusal: it never tells whether a repository is private or missing."""
        user, repo = self.user(), self.hub.repos.get((repo_type, repo_id))
        if repo is None or (repo["private"] and user != OWNER):
            raise HubError(404 if user else 401, "RepoNotFound", "Repository not found")
        if contents and repo["gated"] and user != OWNER:
            raise HubError(403 if user else 401, "GatedRepo", f"Access to model {repo_id} is restricted.")
        return repo

    def route(self, path, body):
        if path == "/api/whoami-v2":
            auth = {"type": "access_token", "accessToken": {"role": "write"}}
            return self.send(200, {"type": "user", "id": "0", "name": self.user(), "orgs": [], "auth": auth})
        if path == "/api/validate-yaml":
            return self.send(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create" and self.command == "POST":
            return self.create_repo(json.loads(body))
        match = re.fullmatch(rf"/api/({KINDS})/([^/]+/[^/]+)(?:/({ACTIONS})(?:/(.*))?)?", path)
        if match:
            action, rest = match[3] or "revision", match[4] or "main"
            repo_type, repo_id = match[1][:-1], unquote(match[2])
            repo = self.find(repo_type, repo_id, contents=action == "tree")
            if action in WRITES and self.user() != OWNER:
                raise HubError(403, message="you must use a token that may write to this repository")
            if self.command == WRITES.get(action, "GET") or (self.command == "HEAD" and action not in WRITES):
                return getattr(self, "api_" + action.replace("-", "_"))(repo_type, repo_id, repo, rest, body)
        match = re.fullmatch(r"(?:/(datasets|spaces))?/([^/]+/[^/]+)/(?:resolve|raw)/([^/]+)/(.+)", path)
        if match and self.command in ("GET", "HEAD"):
            repo = self.find((match[1] or "models")[:-1], unquote(match[2]), contents=True)
            return self.send_file(repo, unquote(match[3]), unquote(match[4]))
        raise HubError(404, "NotImplementedByLoopbackHub")

    def create_repo(self, request):
        if self.user() is None:
            raise HubError(401, message="Invalid username or password.")
        repo_type = request.get("type") or "model"
        repo_id = f"{request.get('organization') or OWNER}/{request['name']}"
        url = f"{self.hub.url}/{URL_PREFIX[repo_type]}{repo_id}"
        if (repo_type, repo_id) in self.hub.repos:
            return self.send(409, {"error": "You already created this repo", "url": url})
        private = request.get("visibility") == "private"
        self.hub.repos[repo_type, repo_id] = {"commits": {}, "refs": {}, "private": private, "gated": False}
        self.hub.commit(self.hub.repos[repo_type, repo_id], "main", {})
        return self.send(200, {"url": url, "name": repo_id, "id": "0"})

    def api_settings(self, repo_type, repo_id, repo, rest, body):
        asked = json.loads(body)
        repo["private"] = asked.get("visibility", "private" if repo["private"] else "public") == "private"
        repo["gated"] = bool(asked.get("gated", repo["gated"]))
        return self.send(200, {})

    def api_super_squash(self, repo_type, repo_id, repo, rest, body):
        """All commits of a branch become one: those that others have pinned vanish."""
        files = self.hub.files(repo_id, unquote(rest), repo_type)
        repo["commits"], repo["refs"] = {}, {}
        self.hub.commit(repo, unquote(rest), files)
        return self.send(200, {})

    def api_preupload(self, repo_type, repo_id, repo, rest, body):
        files = repo["commits"][self.hub.resolve(repo, unquote(rest))]
        answer = []
        for item in json.loads(body)["files"]:
            path = item["path"]
            oid = blob_id(files[path]) if path in files else None  # an equal oid lets the client skip the file
            answer.append({"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": oid})
        return self.send(200, {"files": answer})

    def api_commit(self, repo_type, repo_id, repo, rest, body):
        branch = unquote(rest)
        files = dict(repo["commits"][self.hub.resolve(repo, branch)])
        message = ""
        for line in body.splitlines():
            if not line.strip():
                continue
            operation = json.loads(line)
            key, value = operation["key"], operation["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "deletedFile":
                files.pop(value["path"], None)
            elif key == "deletedFolder":
                folder = value["path"].rstrip("/") + "/"
                files = {path: data for path, data in files.items() if not path.startswith(folder)}
            else:
                raise HubError(400, "NotImplementedByLoopbackHub")
        sha = self.hub.commit(repo, branch, files, message)
        url = f"{self.hub.url}/{URL_PREFIX[repo_type]}{repo_id}/commit/{sha}"
        return self.send(200, {"commitUrl": url, "commitOid": sha, "hookOutput": "", "success": True})

    def api_branch(self, repo_type, repo_id, repo, rest, body):
        if unquote(rest) in repo["refs"]:
            raise HubError(409, message="Reference already exists")
        repo["refs"][unquote(rest)] = repo["refs"]["main"]
        return self.send(200, {})

    def api_tree(self, repo_type, repo_id, repo, rest, body):
        revision, _, folder = rest.partition("/")
        sha = self.hub.resolve(repo, unquote(revision))
        files = repo["commits"][sha]
        prefix = unquote(folder) + "/" if folder else ""
        found = {path: data for path, data in sorted(files.items()) if path.startswith(prefix)}
        rows = [{"type": "file", "path": p, "size": len(d), "oid": blob_id(d)} for p, d in found.items()]
        if "recursive=true" not in self.path.lower():  # then a folder stands for what is in it
            inside = {path.removeprefix(prefix).partition("/")[0] for path in found if "/" in path.removeprefix(prefix)}
            rows = [row for row in rows if "/" not in row["path"].removeprefix(prefix)]
            rows += [{"type": "directory", "path": prefix + name, "size": 0, "oid": sha} for name in sorted(inside)]
        return self.send(200, rows)

    def api_refs(self, repo_type, repo_id, repo, rest, body):
        branches = [{"name": k, "ref": "refs/heads/" + k, "targetCommit": v} for k, v in repo["refs"].items()]
        return self.send(200, {"branches": branches, "converts": [], "tags": []})

    def api_revision(self, repo_type, repo_id, repo, rest, body):
        sha = self.hub.resolve(repo, unquote(rest))
        info = {"_id": "0", "id": repo_id, "modelId": repo_id, "sha": sha, "private": repo["private"]}
        info |= {"gated": repo["gated"] and "auto", "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        info |= {"pipeline_tag": None, "library_name": "transformers", "createdAt": DATE, "lastModified": DATE}
        info["siblings"] = [{"rfilename": path} for path in sorted(repo["commits"][sha])]
        return self.send(200, info)

    def send_file(self, repo, revision, path):
        sha = self.hub.resolve(repo, revision)
        data = repo["commits"][sha].get(path)
        if data is None:
            raise HubError(404, "EntryNotFound", headers={"X-Repo-Commit": sha})
        headers = {"X-Repo-Commit": sha, "ETag": f'"{blob_id(data)}"', "Accept-Ranges": "bytes"}
        return self.send(200, data, headers, "application/octet-stream")
