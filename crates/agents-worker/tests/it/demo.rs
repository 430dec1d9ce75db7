//! The demo model through the whole worker.

use convene_model::{
    MessageId,
    agents::{ResolvedModel, Usage},
};

use crate::world::{World, agent_author, message, request, user};

#[tokio::test]
async fn the_demo_model_streams_word_by_word_and_greets_by_name() {
    let world = World::new(ResolvedModel::Demo);
    let reply = world.say("@Aria hello").await;
    assert!(reply.text().starts_with("Hello Ana! I am Aria."), "{}", reply.text());
    assert!(reply.text().contains("demo model"));
    let deltas = reply.deltas();
    assert!(deltas.len() > 10, "{deltas:?}");
    assert_eq!(deltas[0], (0, "Hello ".into()));
    assert_eq!(deltas[1], (6, "Ana! ".into()));
    assert_eq!(reply.usage(), Some(Usage::default()));
}

#[tokio::test]
async fn offsets_of_deltas_are_gap_free_in_bytes() {
    let world = World::new(ResolvedModel::Demo);
    let reply = world.say("@Aria say: Grüße an 東京 🙂 — und zurück").await;
    let mut expected = 0;
    for (offset, text) in reply.deltas() {
        assert_eq!(offset, expected);
        expected += text.len() as u64;
    }
    assert!(reply.text().starts_with("Grüße an 東京 🙂 — und zurück"));
}

#[tokio::test]
async fn the_demo_model_knows_earlier_turns_and_who_said_what() {
    let world = World::new(ResolvedModel::Demo);
    let mut call = request("@Aria who is here?");
    call.messages.push(message("m2", agent_author("a1"), "Ana, Ben, Critic and I."));
    call.messages.push(message("m3", user("u2"), "good"));
    call.messages.push(message("m4", user("u1"), "@Aria summarise"));
    call.trigger = MessageId::new("m4").unwrap();
    assert_eq!(
        world.invoke(&call).await.text(),
        "The last 3 messages by Ana, Aria and Ben, in their own words:\n\n\
         - **Ana**: Aria who is here?\n\
         - **Aria**: Ana, Ben, Critic and I.\n\
         - **Ben**: good"
    );
}

#[tokio::test]
async fn each_run_has_its_own_offsets_and_the_same_answer() {
    let world = World::new(ResolvedModel::Demo);
    let first = world.say("@Aria 6 * 7").await;
    let second = world.say("@Aria 6 * 7").await;
    assert_eq!(first.text(), second.text());
    assert_eq!(second.deltas()[0].0, 0);
}
