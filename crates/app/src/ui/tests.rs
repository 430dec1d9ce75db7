//! Every page rendered once, and what must hold of all of them.

use std::collections::HashMap;

use convene_model::{
    AgentId, ApprovalId, CallId, GroupId, HistoryId, MessageId, OrgId, Role, RunId, Timestamp,
    UserId,
    agents::Usage,
    event::{Author, GroupAgent, Posted, RunFinished, RunStatus, TriggerPolicy},
    history::{ApprovalOutcome, Excerpt, FinishedRun, Message, PastApproval, Reactions},
    tools::{ToolStatus, ToolView},
};

use super::{
    CSP, pages, runs,
    timeline::{self, GROUP_MILLIS},
    view::*,
};

/// A name that would break out of a page if anything left it unescaped.
const EVIL: &str = "</script><script>alert('x')</script>\"'>&";
/// 2026-11-20T14:05:00Z.
const AT: u64 = 1_795_183_500_000;

fn org() -> OrgView {
    OrgView { org_id: OrgId::new("o1").unwrap(), name: EVIL.to_owned(), role: Role::Owner }
}

fn me() -> Me {
    Me { id: UserId::new("u1").unwrap(), name: EVIL.to_owned(), email: EVIL.to_owned() }
}

fn item() -> GroupItem {
    GroupItem {
        group_id: GroupId::new("g1").unwrap(),
        org_id: OrgId::new("o1").unwrap(),
        title: EVIL.to_owned(),
        is_private: true,
        created_at: Timestamp::from_millis(AT),
        status: GroupLife::Archived,
        status_at: Some(Timestamp::from_millis(AT)),
        standing: Standing::default(),
    }
}

fn shell() -> Shell {
    Shell { csrf: "c".to_owned(), me: me(), org: org(), orgs: vec![org()], groups: vec![item()] }
}

fn user(id: &str) -> Author {
    Author::User(UserId::new(id).unwrap())
}

fn message(seq: u64, at: u64, author: Author) -> MessageView {
    let message_id = MessageId::new(format!("m{seq}")).unwrap();
    let posted = Posted {
        root: message_id.clone(),
        message_id,
        author,
        hop: 0,
        nth: 1,
        reply_to: None,
        run_id: None,
        mentions: Vec::new(),
        text: EVIL.to_owned(),
    };
    let at = Timestamp::from_millis(at);
    let html = super::markdown::render(EVIL);
    MessageView {
        message: Message {
            seq,
            at,
            posted,
            edited_at: None,
            deleted: false,
            reactions: Vec::new(),
        },
        html,
    }
}

fn run(seq: u64, message: Option<&str>, status: RunStatus, detail: Option<&str>) -> FinishedRun {
    let finished = RunFinished {
        run_id: RunId::new(format!("r{seq}")).unwrap(),
        attempt: 1,
        agent_id: AgentId::new("a1").unwrap(),
        trigger: MessageId::new("m1").unwrap(),
        status,
        message_id: message.map(|id| MessageId::new(id).unwrap()),
        code: None,
        detail: detail.map(str::to_owned),
        usage: None,
        reservation: None,
    };
    FinishedRun::new(seq, Timestamp::from_millis(AT), finished)
}

/// The run with a call that somebody allowed and one that failed.
fn with_tools(mut run: FinishedRun) -> FinishedRun {
    let call = |id: &str, status, arguments: &str| ToolView {
        call_id: CallId::new(id).unwrap(),
        tool: "http_request".to_owned(),
        arguments: arguments.to_owned(),
        status: Some(status),
        summary: Some(EVIL.to_owned()),
    };
    run.tools = vec![call("c1", ToolStatus::Ok, EVIL), call("c2", ToolStatus::Timeout, "{}")];
    run.approvals = vec![PastApproval {
        approval_id: ApprovalId::new("p1").unwrap(),
        call_id: CallId::new("c1").unwrap(),
        tool: "http_request".to_owned(),
        outcome: ApprovalOutcome::Approved,
        by: vec![UserId::new("u2").unwrap()],
        at: None,
    }];
    run.finished.usage = Some(Usage { input_tokens: 1100, output_tokens: 104, ..Usage::default() });
    run
}

fn page(messages: Vec<MessageView>, runs: Vec<FinishedRun>) -> PageView {
    let history = HistoryId::new("h1").unwrap();
    PageView {
        messages,
        runs,
        answered: Vec::new(),
        more_before: false,
        more_after: false,
        head: 9,
        history,
    }
}

fn group(page: Option<PageView>) -> GroupView {
    GroupView {
        shell: shell(),
        group: item(),
        members: vec![Person { user_id: UserId::new("u2").unwrap(), name: EVIL.to_owned() }],
        agents: vec![GroupAgent {
            agent_id: AgentId::new("a1").unwrap(),
            name: "Guide".to_owned(),
            trigger: TriggerPolicy::Mention,
            outside: false,
        }],
        paused: false,
        can_manage: true,
        keeps_history: false,
        former: HashMap::new(),
        page,
        target: None,
    }
}

fn own_account(shell: Option<Shell>) -> AccountView {
    let session = |is_current, is_program, device: &str| SessionView {
        session_id: "s1".to_owned(),
        device: device.to_owned(),
        is_program,
        is_current,
        created_at: Timestamp::from_millis(AT),
        last_used_at: (!is_program).then(|| Timestamp::from_millis(AT)),
    };
    let sessions =
        vec![session(true, false, EVIL), session(false, false, ""), session(false, true, "")];
    AccountView { csrf: "c".to_owned(), me: me(), shell, sessions }
}

fn all_pages() -> Vec<String> {
    let errors = || FormErrors::general(EVIL).field("email", EVIL).field("name", EVIL);
    let member = |id: &str, role| MemberView {
        user_id: UserId::new(id).unwrap(),
        name: EVIL.to_owned(),
        email: EVIL.to_owned(),
        role,
    };
    let token = TokenView {
        token_id: "t1".to_owned(),
        name: EVIL.to_owned(),
        created_at: Timestamp::from_millis(AT),
        last_used_at: Some(Timestamp::from_millis(AT)),
    };
    let invite = |state| InviteView {
        csrf: "c".to_owned(),
        token: "t".to_owned(),
        org: Some((OrgId::new("o1").unwrap(), EVIL.to_owned())),
        invited_by: Some(EVIL.to_owned()),
        me: Some(me()),
        state,
    };
    let busy = page(
        vec![message(1, AT, user("u1")), message(2, AT, user("u2"))],
        vec![with_tools(run(3, None, RunStatus::Failed, Some(EVIL)))],
    );
    let mut pages = vec![
        pages::sign_up(&SignUpView {
            csrf: "c".to_owned(),
            next: Some(EVIL.to_owned()),
            invite: Some(EVIL.to_owned()),
            invite_org: Some(EVIL.to_owned()),
            email: EVIL.to_owned(),
            name: EVIL.to_owned(),
            errors: errors(),
        }),
        pages::sign_in(&SignInView {
            csrf: "c".to_owned(),
            next: Some(EVIL.to_owned()),
            invite_org: Some(EVIL.to_owned()),
            email: EVIL.to_owned(),
            errors: errors(),
        }),
        pages::invite(&invite(InviteState::Open)),
        pages::invite(&InviteView { me: None, ..invite(InviteState::Open) }),
        pages::invite(&invite(InviteState::AlreadyMember)),
        pages::invite(&InviteView { org: None, ..invite(InviteState::Gone) }),
        pages::start(&StartView {
            csrf: "c".to_owned(),
            me: me(),
            orgs: vec![org()],
            name: EVIL.to_owned(),
            errors: errors(),
        }),
        pages::start(&StartView {
            csrf: "c".to_owned(),
            me: me(),
            orgs: Vec::new(),
            name: String::new(),
            errors: FormErrors::default(),
        }),
        pages::workspace(&WorkspaceView { shell: shell(), filter: None }),
        pages::workspace(&WorkspaceView { shell: shell(), filter: Some(GroupFilter::Active) }),
        pages::workspace(&WorkspaceView { shell: shell(), filter: Some(GroupFilter::Archived) }),
        pages::workspace(&WorkspaceView {
            shell: Shell { groups: Vec::new(), ..shell() },
            filter: None,
        }),
        pages::settings_members(&MembersView {
            shell: shell(),
            members: vec![member("u1", Role::Owner), member("u2", Role::Member)],
            invites: vec![OpenInvite {
                invite_id: "i1".to_owned(),
                made_by: EVIL.to_owned(),
                created_at: Timestamp::from_millis(AT),
                expires_at: Timestamp::from_millis(AT),
            }],
            keeps_history: true,
        }),
        pages::own_account(&own_account(Some(shell()))),
        pages::own_account(&own_account(None)),
        pages::settings_tokens(&TokensView { shell: shell(), tokens: vec![token] }),
        pages::group(&group(Some(busy))),
        pages::group(&group(Some(page(Vec::new(), Vec::new())))),
        pages::group(&group(None)),
        pages::error(&ErrorView {
            status: 404,
            title: EVIL.to_owned(),
            detail: EVIL.to_owned(),
            ..ErrorView::default()
        }),
    ];
    pages.extend(crate::settings::samples::pages(&shell(), EVIL));
    pages
}

#[test]
fn nothing_that_people_write_breaks_out_of_a_page() {
    for page in all_pages() {
        assert!(!page.contains("<script>"), "unescaped in {page}");
        assert_eq!(page.matches("<script").count(), page.matches("</script").count(), "{page}");
        // In attributes, where a quotation mark would be enough.
        for value in ["value=\"", "placeholder=\"", "aria-label=\"", "confirm=\"", "title=\""] {
            for rest in page.split(value).skip(1) {
                assert!(!rest.starts_with("<") && !rest.starts_with("Write to <"), "{rest}");
            }
        }
    }
}

#[test]
fn no_page_has_script_or_style_in_line() {
    for page in all_pages() {
        for tag in page.split('<').skip(1).filter_map(|piece| piece.split('>').next()) {
            let data = tag.starts_with("script type=\"application/json\"");
            assert!(!tag.starts_with("script") || tag.contains("src=") || data, "{tag}");
            assert!(!tag.starts_with("style") && !tag.contains(" style="), "{tag}");
            assert!(!tag.split('"').step_by(2).any(|part| part.contains(" on")), "{tag}");
        }
    }
    assert!(!CSP.contains("unsafe"));
}

#[test]
fn every_page_has_one_heading_one_main_part_and_its_csrf_token() {
    for page in all_pages() {
        assert_eq!(page.matches("<h1").count(), 1, "{page}");
        assert_eq!(page.matches("<main").count(), 1, "{page}");
        assert_eq!(page.matches("name=\"csrf-token\"").count(), 1, "{page}");
        let forms = page.matches("method=\"post\"").count();
        assert_eq!(page.matches("name=\"csrf\"").count(), forms, "{page}");
    }
}

#[test]
fn the_bootstrap_is_json_and_ends_where_it_should() {
    let html = pages::group(&group(Some(page(vec![message(1, AT, user("u1"))], Vec::new()))));
    let start = html.split_once("id=\"bootstrap\">").unwrap().1;
    let json: serde_json::Value =
        serde_json::from_str(start.split_once("</script>").unwrap().0).unwrap();
    assert_eq!(json["group"]["title"], EVIL);
    assert_eq!(json["page"]["messages"][0]["text"], EVIL);
    assert_eq!(json["page"]["messages"][0]["html"], super::markdown::render(EVIL));
    assert_eq!(json["page"]["head"], 9);
    assert_eq!(json["me"]["id"], "u1");
    assert_eq!((&json["group"]["status"], &json["can_manage"]), (&"archived".into(), &true.into()));
    assert_eq!(
        (&json["group"]["read_up_to"], &json["target"]),
        (&0.into(), &serde_json::Value::Null)
    );
}

#[test]
fn a_header_holds_for_five_minutes_of_one_author_on_one_day() {
    let names = Names::of_group(&group(None));
    let items = |messages| timeline::items(&page(messages, Vec::new()), &names);
    let set = items(vec![
        message(1, AT, user("u1")),
        message(2, AT + GROUP_MILLIS, user("u1")),
        message(3, AT + GROUP_MILLIS + 1, user("u1")),
        message(4, AT + GROUP_MILLIS + 2, user("u2")),
    ]);
    let continued: Vec<bool> = set.iter().map(|item| item.continued).collect();
    assert_eq!(continued, [false, true, false, false]);
    assert_eq!(set[0].day.as_deref(), Some("Friday, 20 November 2026"));
    assert_eq!((set[0].clock.as_str(), set[0].iso.as_str()), ("14:05", "2026-11-20T14:05:00Z"));
    assert!(set[1..].iter().all(|item| item.day.is_none()));
    let midnight = AT - AT % 86_400_000 + 86_400_000;
    let set = items(vec![message(1, midnight - 1, user("u1")), message(2, midnight, user("u1"))]);
    assert_eq!((set[1].continued, set[1].day_iso.as_str()), (false, "2026-11-21"));
}

#[test]
fn a_run_stands_at_its_message_or_alone_where_it_ended() {
    let names = Names::of_group(&group(None));
    let agent = || Author::Agent(AgentId::new("a1").unwrap());
    let messages =
        vec![message(1, AT, user("u1")), message(3, AT, agent()), message(6, AT, agent())];
    let runs = vec![
        run(4, Some("m3"), RunStatus::Completed, None),
        run(5, None, RunStatus::Failed, Some("The provider is silent.")),
        run(7, Some("m6"), RunStatus::Cancelled, None),
    ];
    let set = timeline::items(&page(messages, runs), &names);
    let anchors: Vec<&str> = set.iter().map(|item| item.anchor.as_str()).collect();
    assert_eq!(anchors, ["m-m1", "m-m3", "r-r5", "m-m6"]);
    let states: Vec<Option<&str>> =
        set.iter().map(|item| item.state.as_ref().map(|(state, _)| *state)).collect();
    assert_eq!(states, [None, Some("done"), Some("failed"), Some("stopped")]);
    assert_eq!(set[2].state.as_ref().unwrap().1, "failed because the provider is silent.");
    assert!(set[1].agent && set[1].name == "Guide");
}

#[test]
fn the_tools_of_a_run_stand_below_it_before_any_script() {
    let mut group = group(Some(page(
        vec![message(1, AT, user("u1"))],
        vec![with_tools(run(3, None, RunStatus::Failed, None))],
    )));
    group.members[0].name = "Ben".to_owned();
    let html = pages::group(&group);
    for words in [
        "Used http_request (2): 1 of 2 without success</span><span>1,204 tokens, cost unknown",
        "allowed by Ben, done",
        "took too long",
    ] {
        assert!(html.contains(words), "{words}: {html}");
    }
    assert_eq!(html.matches("aria-label=\"Arguments\"").count(), 1, "one call had none");
}

#[test]
fn a_page_says_where_history_is_kept_if_that_is_not_here() {
    let mut kept = group(None);
    assert!(!pages::group(&kept).contains("a service of its own"));
    kept.keeps_history = true;
    assert!(pages::group(&kept).contains("a service of its own"));
    let view = MembersView {
        shell: shell(),
        members: Vec::new(),
        invites: Vec::new(),
        keeps_history: false,
    };
    assert!(!pages::settings_members(&view).contains("Where history is kept"));
    let view = MembersView { keeps_history: true, ..view };
    assert!(pages::settings_members(&view).contains("Where history is kept"));
}

#[test]
fn what_an_agent_did_not_do_is_said_with_the_reason() {
    let names = Names::of_group(&group(None));
    let mut run = with_tools(run(3, None, RunStatus::Failed, None));
    run.tools.truncate(1);
    run.tools[0].status = None;
    run.tools[0].tool = "restart".to_owned();
    let said = |run: &FinishedRun| {
        let calls = runs::calls(run, &names).unwrap();
        (calls.line, calls.list[0].how.clone(), calls.list[0].bad)
    };
    let asked = run.approvals.remove(0);
    run.approvals.clear();
    let expected = |how: &str| (format!("restart: {how}"), how.to_owned(), true);
    assert_eq!(said(&run), expected("not finished"));
    for (outcome, how) in [
        (ApprovalOutcome::Expired, "nobody decided in time"),
        (ApprovalOutcome::Denied, "refused by Former member"),
        (ApprovalOutcome::Approved, "allowed by Former member, not finished"),
    ] {
        let by = if outcome == ApprovalOutcome::Expired {
            Vec::new()
        } else {
            vec![UserId::new("u9").unwrap()]
        };
        run.approvals = vec![PastApproval {
            call_id: run.tools[0].call_id.clone(),
            outcome,
            by,
            ..asked.clone()
        }];
        assert_eq!(said(&run), expected(how));
    }
}

#[test]
fn an_answer_quotes_what_it_answers_from_the_page_or_from_beyond_it() {
    let names = Names::of_group(&group(None));
    let answer = |seq, to: &str| {
        let mut answer = message(seq, AT, user("u1"));
        answer.message.posted.reply_to = Some(MessageId::new(to).unwrap());
        answer
    };
    let mut quoted = message(1, AT, user("u9"));
    quoted.message.posted.text = "# Plan\n> the **tide** `tables`\n```json\n{}\n```".to_owned();
    let mut gone = message(2, AT, user("u9"));
    gone.message.deleted = true;
    let mut page = page(
        vec![quoted, gone, answer(3, "m1"), answer(4, "m2"), answer(5, "far"), answer(6, "lost")],
        Vec::new(),
    );
    page.answered.push(Excerpt {
        message_id: MessageId::new("far").unwrap(),
        seq: 0,
        author: Author::Agent(AgentId::new("a1").unwrap()),
        text: "From afar".to_owned(),
        deleted: false,
    });
    let set = timeline::items(&page, &names);
    let quotes: Vec<Option<(&str, &str)>> = set
        .iter()
        .map(|item| item.quote.as_ref().map(|quote| (quote.name.as_str(), quote.text.as_str())))
        .collect();
    assert_eq!(
        quotes,
        [
            None,
            None,
            Some(("Former member", "Plan the tide tables {}")),
            Some(("Former member", "This message was deleted.")),
            Some(("Guide", "From afar")),
            Some(("", "…")),
        ]
    );
}

#[test]
fn reactions_and_edits_stand_below_a_message_before_any_script() {
    let mut edited = message(1, AT, user("u1"));
    edited.message.edited_at = Some(Timestamp::from_millis(AT + 1));
    edited.message.reactions =
        vec![Reactions {
            emoji: "👍".to_owned(), count: 2, authors: vec![user("u1"), user("u2")]
        }];
    let html = pages::group(&group(Some(page(vec![edited], Vec::new()))));
    assert!(html.contains(">edited</span>"), "{html}");
    assert!(html.contains("<span>👍</span><b>2</b>"), "{html}");
}

#[test]
fn names_have_initials_and_ids_have_shades() {
    for (name, letters) in [("Ada Lovelace", "AL"), ("ada", "A"), ("Ada B. Cee", "AC"), (" ", "?")]
    {
        assert_eq!(timeline::initials(name), letters);
    }
    assert!(["", "u1", "u2", "é"].iter().all(|id| timeline::shade(id) < 8));
    assert_eq!(timeline::shade("u1"), timeline::shade("u1"));
}

#[test]
fn leap_days_and_centuries_are_dates() {
    for (millis, date) in [
        (0, "1 January 1970"),
        (951_782_400_000, "29 February 2000"),
        (1_709_164_800_000, "29 February 2024"),
        (4_107_542_400_000, "1 March 2100"),
    ] {
        assert_eq!(pages::date(&Timestamp::from_millis(millis)), date);
    }
}
