//! One attempt from its call to its outcome: resolve, ask the model, make what it asks for, ask
//! again.
//!
//! Everything happens inside the returned stream: dropping it cancels what is under way. Calls that
//! change nothing are made here; the others end the attempt and are made by the next one, once they
//! are recorded and permitted.

use std::sync::Arc;

use convene_model::{
    CallId,
    agents::{
        InvokeEvent, Outcome, ResolvedAgent, ResumedCall, ToolRequest, ToolStatus, Usage, Verdict,
        failure,
    },
    limits::{
        MAX_ARGUMENT_BYTES, MAX_ROUND_ARGUMENT_BYTES, MAX_TOOL_CALLS, MAX_TOOL_ROUNDS, RUN_TOKENS,
    },
};
use futures_util::{FutureExt, Stream, StreamExt, stream::FuturesUnordered};
use serde_json::{Value, json};

use crate::{
    Worker,
    continuation::Continuation,
    conversation::Conversation,
    dialogue::{Ask, CallResult, Called, Round, bytes_of},
    failure::Failure,
    invoke::Call,
    metering::{self, Most},
    prompt,
    providers::{self, Chunk, ChunkStream, End, Wanted},
    reply::{MAX_DELTA_BYTES, Reply},
    resolve,
    tools::{Made, Plan, ToolFailure, Toolbox, cut},
};

/// Bytes of reasoning that go back to a provider.
const MAX_REASONING_BYTES: usize = 16 * 1024;
/// Characters of a name that a model made up.
const MAX_NAME_CHARS: usize = 64;

/// Runs the attempt: deltas and calls of tools, then exactly one `finished`.
pub(crate) fn run(
    worker: Arc<Worker>,
    call: Call,
) -> impl Stream<Item = InvokeEvent> + Send + 'static {
    async_stream::stream! {
        let agent = match resolve::resolve(&worker, &call).await {
            Ok(agent) => agent,
            Err(failure) => {
                yield failed(&call, failure, before_any_model(&call));
                return;
            }
        };
        let mut work = match Work::begin(&call, &agent) {
            Ok(work) => work,
            Err(failure) => {
                yield failed(&call, failure, before_any_model(&call));
                return;
            }
        };
        let toolbox = Toolbox::open(&worker, &agent, work.is_about_to_make(&call)).await;
        for (server, failure) in &toolbox.missing {
            let call_id = work.next_id();
            yield started(&call_id, server, "{}");
            yield finished(&call_id, &toolbox.failed(failure.clone()));
        }
        let conversation = Conversation::new(&agent, &call.request);
        let prompt = Arc::new(prompt::build(&conversation, &toolbox.missing));
        let names = &conversation.authors;

        // What was handed over is made one after the other, in the order in which it was asked for.
        for pending in work.pending() {
            let Resumed { called, resumed } = pending;
            let made = match settle(&toolbox, &called, resumed.as_ref()) {
                Settled::Told(result) => {
                    work.settle(&called.call_id, result);
                    continue;
                }
                Settled::Refused(failure) => toolbox.failed(failure),
                Settled::Make(tool, arguments) => {
                    yield started(&called.call_id, &called.tool, &called.arguments);
                    toolbox.make(&worker.config, &call, names, tool, &arguments).await
                }
            };
            yield finished(&called.call_id, &made);
            work.settle(&called.call_id, made.result);
        }

        let outcome = loop {
            let may_call = work.so_far.asked < MAX_TOOL_ROUNDS;
            work.so_far.fit();
            let mut ask = Ask {
                prompt: Arc::clone(&prompt),
                rounds: work.so_far.rounds.clone(),
                tools: toolbox.specs(),
                may_call,
                max_output: 0,
            };
            let question = work.so_far.spent.question(&ask);
            let Some(room) = work.so_far.spent.room_after(question) else { break Err(used_up()) };
            ask.max_output = room;
            let most_read = ask.tokens();
            let mut chunks =
                Chunks::new(providers::reply(&worker.config, &agent.model, &conversation, ask));
            let (mut text, mut wanted) = (String::new(), Vec::new());
            work.reply.begin_round();
            let ended = loop {
                match chunks.next().await {
                    Ok(Next::Text(more)) => {
                        text.push_str(&more);
                        match work.reply.push(&more) {
                            Ok(deltas) => {
                                for delta in deltas {
                                    yield delta;
                                }
                            }
                            Err(failure) => break Err(failure),
                        }
                    }
                    Ok(Next::Call(call)) => wanted.push(call),
                    Ok(Next::End(end)) => break Ok(end),
                    Err(failure) => break Err(failure),
                }
            };
            drop(chunks);
            let end = match ended {
                Ok(end) => end,
                Err(failure) => {
                    if !text.is_empty() {
                        work.so_far.spent.add(None, question + bytes_of(text.len()));
                    }
                    break Err(failure);
                }
            };
            let reasoning = end.reasoning.as_ref().map_or(0, String::len);
            let written = wanted.iter().map(|call: &Wanted| call.arguments.len());
            let written = bytes_of(written.fold(text.len() + reasoning, usize::saturating_add));
            let most = Most { read: most_read, written: room.max(written) };
            let used = metering::counted(&agent.model, end.usage, most);
            let used = used.map(|usage| usage.priced(agent.price.as_ref()));
            work.so_far.spent.add(used, question.saturating_add(written));
            match work.reply.end_round() {
                Ok(deltas) => {
                    for delta in deltas {
                        yield delta;
                    }
                }
                Err(failure) => break Err(failure),
            }
            if wanted.is_empty() {
                break work.completed(&toolbox, &end);
            }
            if !may_call || wanted.len() > MAX_TOOL_CALLS || toolbox.specs().is_empty() {
                break Err(too_many(may_call && !toolbox.specs().is_empty()));
            }

            let reasoning = end.reasoning.map(|reasoning| cut(&reasoning, MAX_REASONING_BYTES));
            let mut round = Round { text, reasoning, calls: Vec::new() };
            let mut running = FuturesUnordered::new();
            let mut requests: Vec<ToolRequest> = Vec::new();
            for Wanted { tool: name, arguments, signature } in wanted {
                let call_id = work.next_id();
                let name = sendable_name(&name);
                let arguments = if arguments.trim().is_empty() { "{}" } else { arguments.trim() };
                let mut called = Called {
                    call_id: call_id.clone(),
                    tool: name.clone(),
                    arguments: arguments.to_owned(),
                    signature,
                    result: None,
                };
                match bounded(toolbox.plan(&name, arguments), arguments, &requests) {
                    Plan::Make(tool, object) => {
                        yield started(&call_id, &name, arguments);
                        let at = round.calls.len();
                        let (worker, call, toolbox) = (&worker, &call, &toolbox);
                        running.push(async move {
                            let made = toolbox.make(&worker.config, call, names, tool, &object);
                            (at, call_id, made.await)
                        });
                    }
                    Plan::HandOver(tool, approvers) => requests.push(ToolRequest {
                        call_id,
                        tool: name,
                        tool_version: tool.version,
                        arguments: arguments.to_owned(),
                        hash: tool.hash(arguments),
                        approvers,
                    }),
                    Plan::Refuse(failure) => {
                        let made = toolbox.failed(failure);
                        yield started(&call_id, &name, &for_people(arguments));
                        yield finished(&call_id, &made);
                        // What is no object cannot go back to a provider as arguments.
                        if arguments.len() > MAX_ARGUMENT_BYTES || called.object().is_empty() {
                            called.arguments = "{}".to_owned();
                        }
                        called.result = Some(made.result);
                    }
                }
                round.calls.push(called);
            }
            while let Some((at, call_id, made)) = running.next().await {
                yield finished(&call_id, &made);
                round.calls[at].result = Some(made.result);
            }
            drop(running);
            work.so_far.rounds.push(round);
            work.so_far.asked += 1;
            if !requests.is_empty() {
                break Ok(work.handed_over(&toolbox, requests));
            }
        };
        toolbox.close(&worker.config.sleep).await;
        match outcome {
            Ok(outcome) => yield InvokeEvent::Finished(outcome),
            Err(failure) => {
                work.so_far.spent.add_egress(toolbox.bytes());
                yield failed(&call, failure, work.so_far.spent.total());
            }
        }
    }
}

/// What an attempt has at hand.
struct Work {
    so_far: Continuation,
    reply: Reply,
    attempt: u32,
    calls: u32,
    resumed: Vec<ResumedCall>,
}

/// A call that was handed over, and what became of it.
struct Resumed {
    called: Called,
    resumed: Option<ResumedCall>,
}

impl Work {
    fn begin(call: &Call, agent: &ResolvedAgent) -> Result<Self, Failure> {
        let (so_far, offset, resumed) = match &call.request.resume {
            None => (Continuation::new(&agent.model), 0, Vec::new()),
            Some(resume) => (
                Continuation::read(&resume.continuation, &agent.model)?,
                resume.offset,
                resume.calls.clone(),
            ),
        };
        let reply = Reply::resumed(&agent.name, offset);
        Ok(Self { so_far, reply, attempt: call.claims.attempt, calls: 0, resumed })
    }

    /// Whether a call that may change something is to be made.
    fn is_about_to_make(&self, call: &Call) -> bool {
        let resume = call.request.resume.as_ref();
        resume.is_some_and(|resume| resume.calls.iter().any(|one| one.verdict == Verdict::Make))
    }

    /// An id that no other call of the run has: nine letters and digits, as some services want it.
    fn next_id(&mut self) -> CallId {
        self.calls += 1;
        let id = format!("c{:04}{:04}", self.attempt % 10_000, self.calls % 10_000);
        CallId::new(id).expect("letters and digits make an id")
    }

    fn pending(&self) -> Vec<Resumed> {
        let calls = self.so_far.rounds.last().into_iter().flat_map(|round| &round.calls);
        let open = calls.filter(|call| call.result.is_none());
        open.map(|called| Resumed {
            called: called.clone(),
            resumed: self.resumed.iter().find(|one| one.call_id == called.call_id).cloned(),
        })
        .collect()
    }

    fn settle(&mut self, call_id: &CallId, result: CallResult) {
        let calls = self.so_far.rounds.last_mut().into_iter().flat_map(|round| &mut round.calls);
        for call in calls.filter(|call| call.call_id == *call_id) {
            call.result = Some(result.clone());
        }
    }

    fn completed(&mut self, toolbox: &Toolbox, end: &End) -> Result<Outcome, Failure> {
        if !self.reply.said_something() {
            let why = end.cut_short.unwrap_or("The model ended its reply without a word.");
            return Err(Failure::new(failure::EMPTY_REPLY, why));
        }
        self.so_far.spent.add_egress(toolbox.bytes());
        Ok(Outcome::Completed { usage: self.so_far.spent.total() })
    }

    fn handed_over(&mut self, toolbox: &Toolbox, calls: Vec<ToolRequest>) -> Outcome {
        self.so_far.spent.add_egress(toolbox.bytes());
        let usage = self.so_far.spent.total();
        Outcome::ToolRequested { calls, continuation: self.so_far.clone().write(), usage }
    }
}

/// What is done about a call that was handed over.
enum Settled<'a> {
    Make(&'a crate::tools::Tool, serde_json::Map<String, Value>),
    /// It is not made although it was permitted.
    Refused(ToolFailure),
    /// Nothing: the model is told.
    Told(CallResult),
}

fn settle<'a>(toolbox: &'a Toolbox, called: &Called, resumed: Option<&ResumedCall>) -> Settled<'a> {
    let told = |code: &str, message: &str| {
        let text = json!({"error": {"code": code, "message": message}}).to_string();
        Settled::Told(CallResult { text, failed: true })
    };
    match resumed.map(|resumed| (&resumed.verdict, &resumed.hash)) {
        Some((Verdict::Make, hash)) => {
            match toolbox.permitted(&called.tool, &called.arguments, hash) {
                Ok((tool, arguments)) => Settled::Make(tool, arguments),
                Err(failure) => Settled::Refused(failure),
            }
        }
        Some((Verdict::Denied, _)) => {
            told("denied", "The people of the group did not permit this call. It was not made.")
        }
        Some((Verdict::Unknown, _)) | None => told(
            "unknown",
            "The call was begun and then cut off: nobody knows whether it took effect. Do not make \
             it again unless somebody asks for it.",
        ),
        Some((Verdict::Finished { status, summary }, _)) => {
            Settled::Told(CallResult { text: summary.clone(), failed: *status != ToolStatus::Ok })
        }
    }
}

/// A plan within what one round may hand over.
fn bounded<'a>(plan: Plan<'a>, arguments: &str, requests: &[ToolRequest]) -> Plan<'a> {
    let so_far: usize = requests.iter().map(|request| request.arguments.len()).sum();
    if matches!(plan, Plan::HandOver(..)) && so_far + arguments.len() > MAX_ROUND_ARGUMENT_BYTES {
        let why = "The calls of this round have too long arguments together; make fewer at a time.";
        return Plan::Refuse(ToolFailure::new("arguments_too_long", why));
    }
    plan
}

/// A tool's name as the model wrote it, as far as providers take it back.
fn sendable_name(name: &str) -> String {
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let name: String =
        name.chars().take(MAX_NAME_CHARS).map(|c| if fit(c) { c } else { '_' }).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

/// Arguments that are none, as JSON: the text that the model wrote.
fn for_people(arguments: &str) -> String {
    if arguments.len() <= MAX_ARGUMENT_BYTES && serde_json::from_str::<Value>(arguments).is_ok() {
        return arguments.to_owned();
    }
    Value::from(cut(arguments, MAX_ARGUMENT_BYTES / 8)).to_string()
}

fn started(call_id: &CallId, tool: &str, arguments: &str) -> InvokeEvent {
    InvokeEvent::ToolStarted {
        call_id: call_id.clone(),
        tool: tool.to_owned(),
        arguments: arguments.to_owned(),
    }
}

fn finished(call_id: &CallId, made: &Made) -> InvokeEvent {
    InvokeEvent::ToolFinished {
        call_id: call_id.clone(),
        status: made.status,
        summary: made.summary.clone(),
    }
}

fn used_up() -> Failure {
    let why = format!("The agent has used up the {RUN_TOKENS} tokens that a run may take.");
    Failure::new(failure::TOKENS_USED_UP, why)
}

fn too_many(at_a_time: bool) -> Failure {
    let why = if at_a_time {
        format!("The model asked for more than {MAX_TOOL_CALLS} calls of tools at a time.")
    } else {
        "The model asked for tools again and again instead of answering.".to_owned()
    };
    Failure::new(failure::TOO_MANY_TOOL_CALLS, why)
}

/// What a run has used that asks no model in this attempt; `None` where the attempts before it know that.
fn before_any_model(call: &Call) -> Option<Usage> {
    call.request.resume.is_none().then(Usage::default)
}

fn failed(call: &Call, failure: Failure, usage: Option<Usage>) -> InvokeEvent {
    tracing::info!(
        group_id = %call.claims.group_id,
        agent_id = %call.claims.agent_id,
        run_id = %call.claims.run_id,
        attempt = call.claims.attempt,
        code = failure.code,
        "an attempt failed"
    );
    InvokeEvent::Finished(failure.outcome(usage))
}

enum Next {
    Text(String),
    Call(Wanted),
    End(End),
}

/// A provider's chunks with those that are there already joined, so that a fast model does not
/// cost one event per token.
struct Chunks {
    stream: ChunkStream,
    /// What was read while joining and was not text.
    waiting: Option<Option<Result<Chunk, Failure>>>,
}

impl Chunks {
    fn new(stream: ChunkStream) -> Self {
        Self { stream, waiting: None }
    }

    async fn next(&mut self) -> Result<Next, Failure> {
        let chunk = match self.waiting.take() {
            Some(chunk) => chunk,
            None => self.stream.next().await,
        };
        let mut text = match chunk {
            Some(Ok(Chunk::Text(text))) => text,
            Some(Ok(Chunk::Call(call))) => return Ok(Next::Call(call)),
            Some(Ok(Chunk::End(end))) => return Ok(Next::End(end)),
            Some(Err(failure)) => return Err(failure),
            None => {
                let why = "The model provider's answer ended too early.";
                return Err(Failure::new(failure::PROVIDER_CUT, why));
            }
        };
        while text.len() < MAX_DELTA_BYTES {
            match self.stream.next().now_or_never() {
                Some(Some(Ok(Chunk::Text(more)))) => text.push_str(&more),
                Some(other) => {
                    self.waiting = Some(other);
                    break;
                }
                None => break,
            }
        }
        Ok(Next::Text(text))
    }
}
