//! An App with a real database, a clock of its own and an Orchestrator that only takes notes.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, response::Response};
use convene_app::{
    App, Config,
    groups::WorkspaceGroups,
    rooms::{Groups, Records, Said},
    secrets::{MasterKeyReader, MasterKeys},
};
use convene_db::{Db, Statement};
use convene_hop::{Hop, Signer};
use convene_model::{
    GroupId, HistoryId, ParticipantId, Timestamp,
    claims::service,
    event::Author,
    keys::{SigningKey, TrustedKeys},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use url::Url;
use zeroize::Zeroizing;

use crate::{
    agents_worker::agents_worker,
    orchestrator::{Scripted, Talk, orchestrator},
    place::Place,
};

pub(crate) const PASSWORD: &str = "correct horse battery";

/// The keys of all services, from fixed seeds.
pub(crate) fn key(issuer: &str) -> SigningKey {
    let seed = match issuer {
        service::APP => 1,
        service::AGENTS => 2,
        service::CONTROLLERS => 3,
        _ => 9,
    };
    SigningKey::from_seed(issuer, &[seed; 32])
}

/// What differs between worlds.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) public_url: Option<&'static str>,
    pub(crate) trusted_proxies: Vec<&'static str>,
    pub(crate) master_keys: Option<MasterKeyReader>,
    pub(crate) requests_per_minute: Option<u32>,
}

/// Master keys of repeated bytes; the first one is in use.
pub(crate) fn fixed_keys(bytes: &[u8]) -> MasterKeyReader {
    let mut keys = bytes.iter().map(|byte| Zeroizing::new([*byte; 32]));
    let current = keys.next().unwrap();
    let keys = MasterKeys { retired: keys.collect(), ..MasterKeys::only(current) };
    Arc::new(move || Ok(keys.clone()))
}

/// An App and what surrounds it.
pub(crate) struct World {
    pub(crate) app: App,
    pub(crate) db: Db,
    pub(crate) router: Router,
    now: Arc<AtomicU64>,
    calls: Arc<Mutex<Vec<String>>>,
    talk: Talk,
    scripted: Scripted,
    place: Place,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let place = Place::new().await;
        let db = place.open();
        let now = Arc::new(AtomicU64::new(1_800_000_000_000));
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (talk, scripted) = (Talk::default(), Scripted::default());
        let config = config(&db, &now, &calls, (&talk, &scripted), setup);
        let app = convene_app::open(config).await.unwrap();
        let router = app.router();
        Self { app, db, router, now, calls, talk, scripted, place }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.now.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }

    /// Somebody with a browser and no account yet.
    pub(crate) fn browser(&self) -> Client<'_> {
        Client::new(self)
    }

    /// Somebody who has an account and is signed in.
    pub(crate) async fn person(&self, name: &str) -> Client<'_> {
        let mut client = self.browser();
        let email = format!("{}@example.org", name.to_lowercase());
        let body = json!({"email": email, "name": name, "password": PASSWORD});
        let reply = client.post("/api/auth/sign-up", &body).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text);
        client.id = reply.json["user"]["id"].as_str().unwrap().to_owned();
        client.learn_csrf().await;
        client
    }

    /// What the Orchestrator was asked, as `METHOD path body`, once it has been asked `count`
    /// times or nothing more comes.
    pub(crate) async fn calls(&self, count: usize) -> Vec<String> {
        for _ in 0..200 {
            if self.calls.lock().unwrap().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// Lets the Orchestrator answer a call (`METHOD path`) from now on with this.
    pub(crate) fn script(&self, call: &str, status: u16, body: Value) {
        self.scripted.lock().unwrap().insert(call.to_owned(), (status, body));
    }

    /// Marks a group as one that the Orchestrator knows.
    pub(crate) async fn activate(&self, group: &str) {
        let now = self.now();
        let groups = WorkspaceGroups::new(Arc::clone(&self.db), Arc::new(move || now));
        groups.activated(&GroupId::new(group).unwrap()).await.unwrap();
    }

    pub(crate) fn groups(&self) -> WorkspaceGroups {
        let now = self.now();
        WorkspaceGroups::new(Arc::clone(&self.db), Arc::new(move || now))
    }

    /// Lets something be said in a group, as its room would record it; every tenth event is a
    /// message.
    pub(crate) async fn say(&self, group: &str, author: Author, mentions: &[&str], text: &str) {
        let nth = {
            let mut talk = self.talk.lock().unwrap();
            let messages = talk.entry(group.to_owned()).or_default();
            messages.push(messages.len() as u64 * 10 + 10);
            messages.len() as u64
        };
        let mentions = mentions.iter().map(|id| ParticipantId::new(id).unwrap()).collect();
        let (seq, at, text) = (nth * 10, self.now(), text.to_owned());
        let said = vec![Said { seq, nth, at, author, mentions, text }];
        let history = HistoryId::new("h1").unwrap();
        let (unsaid, read, jump) = (Vec::new(), Vec::new(), false);
        let records = Records { history, said, unsaid, read, jump };
        let head = self.groups().record(&GroupId::new(group).unwrap(), records).await.unwrap();
        assert_eq!(head.unwrap().nth, nth);
    }

    /// A second App process over the same workspace.
    pub(crate) async fn second_app(&self) -> Router {
        let config = config(
            &self.db,
            &self.now,
            &self.calls,
            (&self.talk, &self.scripted),
            Setup::default(),
        );
        convene_app::open(config).await.unwrap().router()
    }

    /// The App of a later process, which has these master keys.
    pub(crate) async fn later_app(&self, keys: MasterKeyReader) -> App {
        let setup = Setup { master_keys: Some(keys), ..Setup::default() };
        let config = config(&self.db, &self.now, &self.calls, (&self.talk, &self.scripted), setup);
        convene_app::open(config).await.unwrap()
    }

    /// How many rows a table has.
    pub(crate) async fn rows(&self, table: &str) -> u64 {
        let sql = format!("SELECT count(*) AS n FROM {table}");
        self.db.query(Statement::new(sql, vec![])).await.unwrap()[0].get("n").unwrap()
    }

    /// All that is stored: the bytes of the database's files, and every row of every table.
    pub(crate) async fn stored(&self) -> Vec<u8> {
        let mut stored = Vec::new();
        if let Place::Folder(dir) = &self.place {
            for entry in std::fs::read_dir(dir.path()).unwrap() {
                stored.extend(std::fs::read(entry.unwrap().path()).unwrap());
            }
        }
        for table in self.db.query(Statement::new(self.place.tables(), vec![])).await.unwrap() {
            let sql = format!("SELECT * FROM {}", table.get::<String>("name").unwrap());
            let rows = self.db.query(Statement::new(sql, vec![])).await.unwrap();
            stored.extend(format!("{rows:?}").into_bytes());
        }
        stored
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        Reply::read(self.router.clone().oneshot(request).await.unwrap()).await
    }
}

fn config(
    db: &Db,
    now: &Arc<AtomicU64>,
    calls: &Arc<Mutex<Vec<String>>>,
    (talk, scripted): (&Talk, &Scripted),
    setup: Setup,
) -> Config {
    let ticks = Arc::clone(now);
    let clock: convene_hop::Clock =
        Arc::new(move || Timestamp::from_millis(ticks.load(Ordering::SeqCst)));
    let proxies = setup.trusted_proxies.into_iter().map(|text| text.parse().unwrap());
    Config {
        db: Arc::clone(db),
        orchestrator: Hop::in_process(orchestrator(
            Arc::clone(calls),
            Arc::clone(talk),
            Arc::clone(scripted),
        )),
        agents: Some(Hop::in_process(agents_worker(Arc::clone(now)))),
        signer: Signer::new(key(service::APP), clock.clone()),
        agents_keys: trusted(service::AGENTS),
        controller_keys: trusted(service::CONTROLLERS),
        clock,
        public_url: setup.public_url.map(|url| Url::parse(url).unwrap()),
        trusted_proxies: proxies.collect(),
        external_history: std::collections::BTreeSet::new(),
        ping_every: convene_app::rooms::tuning::PING_EVERY,
        requests_per_minute: setup.requests_per_minute,
        master_keys: setup.master_keys.unwrap_or_else(|| fixed_keys(&[7])),
    }
}

fn trusted(issuer: &str) -> TrustedKeys {
    TrustedKeys::of(issuer, &key(issuer).jwks()).unwrap()
}

/// An answer, read.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Reply {
    pub(crate) async fn read(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status: parts.status, headers: parts.headers, text, json }
    }

    pub(crate) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or("")
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// `(status, code)`, for comparing refusals.
    pub(crate) fn refusal(&self) -> (u16, &str) {
        (self.status.as_u16(), self.code())
    }

    /// The value of a hidden field of a form.
    pub(crate) fn hidden(&self, name: &str) -> &str {
        let start = format!("name=\"{name}\" value=\"");
        let at = self.text.find(&start).unwrap_or_else(|| panic!("no field {name}")) + start.len();
        &self.text[at..at + self.text[at..].find('"').unwrap()]
    }
}

/// A browser or a program: keeps cookies, sends its origin, and its CSRF token or bearer token.
#[derive(Clone)]
pub(crate) struct Client<'w> {
    pub(crate) world: &'w World,
    pub(crate) id: String,
    pub(crate) cookies: BTreeMap<String, String>,
    pub(crate) csrf: Option<String>,
    pub(crate) bearer: Option<String>,
    pub(crate) origin: Option<&'static str>,
    pub(crate) host: &'static str,
    pub(crate) address: [u8; 4],
    pub(crate) extra: Vec<(HeaderName, HeaderValue)>,
}

impl<'w> Client<'w> {
    fn new(world: &'w World) -> Self {
        Self {
            world,
            id: String::new(),
            cookies: BTreeMap::new(),
            csrf: None,
            bearer: None,
            origin: Some("http://convene.test"),
            host: "convene.test",
            address: [192, 0, 2, 1],
            extra: Vec::new(),
        }
    }

    pub(crate) async fn learn_csrf(&mut self) {
        let me = self.get("/api/me").await;
        assert_eq!(me.status, StatusCode::OK, "{}", me.text);
        self.csrf = me.json["csrf"].as_str().map(str::to_owned);
    }

    pub(crate) async fn get(&mut self, path: &str) -> Reply {
        self.send(Method::GET, path, None, Vec::new()).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Reply {
        self.json(Method::POST, path, body).await
    }

    pub(crate) async fn patch(&mut self, path: &str, body: &Value) -> Reply {
        self.json(Method::PATCH, path, body).await
    }

    pub(crate) async fn put(&mut self, path: &str, body: &Value) -> Reply {
        self.json(Method::PUT, path, body).await
    }

    pub(crate) async fn delete(&mut self, path: &str) -> Reply {
        self.send(Method::DELETE, path, None, Vec::new()).await
    }

    pub(crate) async fn json(&mut self, method: Method, path: &str, body: &Value) -> Reply {
        let body = serde_json::to_vec(body).unwrap();
        self.send(method, path, Some("application/json"), body).await
    }

    pub(crate) async fn form(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let body =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let kind = Some("application/x-www-form-urlencoded");
        self.send(Method::POST, path, kind, body.into_bytes()).await
    }

    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        kind: Option<&str>,
        body: Vec<u8>,
    ) -> Reply {
        let request = self.request(method, path, kind, body);
        let reply = self.world.send(request).await;
        for cookie in reply.headers.get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            if cookie.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        reply
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        kind: Option<&str>,
        body: Vec<u8>,
    ) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::HOST, self.host);
        if let Some(origin) = self.origin {
            request = request.header(header::ORIGIN, origin);
        }
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if let Some(csrf) = &self.csrf {
            request = request.header("x-csrf-token", csrf);
        }
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
        }
        if !self.cookies.is_empty() {
            let pairs: Vec<_> = self.cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
            request = request.header(header::COOKIE, pairs.join("; "));
        }
        for (name, value) in &self.extra {
            request = request.header(name, value);
        }
        let peer = SocketAddr::from((self.address, 50_000));
        request.extension(ConnectInfo(peer)).body(Body::from(body)).unwrap()
    }

    /// Makes a workspace and returns its id.
    pub(crate) async fn org(&mut self, name: &str) -> String {
        let reply = self.post("/api/orgs", &json!({"name": name})).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text);
        reply.json["org_id"].as_str().unwrap().to_owned()
    }

    /// Makes a group and returns its id.
    pub(crate) async fn group(
        &mut self,
        org: &str,
        title: &str,
        members: Option<&[&str]>,
    ) -> String {
        let mut body = json!({"org_id": org, "title": title});
        if let Some(members) = members {
            body["is_private"] = true.into();
            body["member_ids"] = members.into();
        }
        let reply = self.post("/api/groups", &body).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text);
        reply.json["group_id"].as_str().unwrap().to_owned()
    }

    /// Invites somebody, who accepts.
    pub(crate) async fn bring(&mut self, org: &str, guest: &mut Client<'_>) {
        let made = self.post(&format!("/api/orgs/{org}/invites"), &json!({})).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let token = made.json["token"].as_str().unwrap();
        let joined = guest.post(&format!("/api/invites/{token}"), &json!({})).await;
        assert_eq!(joined.json["org_id"], org, "{}", joined.text);
    }
}
