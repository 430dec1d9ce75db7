//! Frames as bytes, and bytes that are no frames.

use super::*;

#[test]
fn conn_goes_in_and_comes_out_unparsed() {
    let conn = ConnId::new("c-1").unwrap();
    let frame = GroupFrame::Ok { r#ref: Ref::new("7").unwrap(), seq: Some(3), message_id: None };
    let bytes = frame.encode_for(&conn);
    assert_eq!(&bytes[..], br#"{"conn":"c-1","type":"ok","ref":"7","seq":3}"#);
    let (got, rest) = split_conn(&bytes);
    assert_eq!(got, Some(conn));
    assert_eq!(rest, frame.encode());
    assert_eq!(split_conn(&rest), (None, rest.clone()));
}

#[test]
fn a_frame_with_an_unknown_type_or_member_is_refused_and_its_ref_is_kept() {
    let bad = parse::<ClientFrame>(br#"{"type":"dance","ref":"1"}"#).unwrap_err();
    assert_eq!((bad.code, bad.r#ref.unwrap().as_str()), (Code::UnknownType, "1"));
    let bad = parse::<ClientFrame>(
        br#"{"type":"post","ref":"2","message_id":"m","text":"x","conn":"c"}"#,
    )
    .unwrap_err();
    assert_eq!((bad.code, bad.r#ref.unwrap().as_str()), (Code::InvalidFrame, "2"));
    let bad = parse::<ClientFrame>(b"{\"type\":\"post\"").unwrap_err();
    assert_eq!((bad.code, bad.r#ref), (Code::InvalidFrame, None));
    let bad = parse::<ClientFrame>(b"\xff\xfe").unwrap_err();
    assert_eq!(bad.code, Code::InvalidFrame);
}

#[test]
fn a_post_is_read_with_and_without_its_optional_members() {
    let frame: ClientFrame =
        parse(br#"{"type":"post","ref":"7","message_id":"m1","text":"hi"}"#).unwrap();
    let ClientFrame::Post { mentions, reply_to, .. } = frame else { panic!("a post") };
    assert_eq!((mentions, reply_to), (None, None));
    let frame: UpstreamFrame = parse(
        br#"{"conn":"c1","type":"post","ref":"7","message_id":"m1","text":"hi","mentions":["a1"],"reply_to":"m0"}"#,
    )
    .unwrap();
    assert!(matches!(frame, UpstreamFrame::Post { mentions: Some(m), .. } if m.len() == 1));
}
