//! Claiming, signing in, tokens: who gets in, and who does not any more.

use super::*;

#[tokio::test]
async fn whoever_has_the_code_becomes_the_owner_and_nobody_after() {
    let bench = Bench::new();
    let claim = bench.node.claim();
    assert!(!claim.is_claimed());
    let code = claim.code().unwrap().reveal();
    let wrong = claim
        .by_code("0000-0000-0000-0000", name("eve"), password("password1"), home())
        .await;
    assert!(matches!(wrong, Err(Error::Refused(Refusal::ClaimCode))));
    let weak = claim.by_code(&code, name("ann"), password("short"), home()).await;
    assert!(matches!(weak, Err(Error::Invalid { what: "password", .. })));
    let session = claim
        .by_code(&code, name("ann"), password("correct horse"), home())
        .await
        .unwrap();
    assert!(session.principal.may(Scope::Admin));
    assert!(claim.code().is_none());
    let late = claim
        .by_code(&code, name("eve"), password("password1"), home())
        .await;
    assert!(matches!(
        late,
        Err(Error::Conflict {
            kind: Kind::Claim,
            ..
        })
    ));

    let bench = bench.restart();
    assert!(bench.node.claim().is_claimed());
    assert!(!bench.dir.path().join("data/identity/claim.json").exists());
    let found = bench.node.sessions().find(session.cookie.expose()).unwrap();
    assert_eq!(found.account, name("ann"));
    let kinds: Vec<_> = bench.node.security_log().list(10).await.unwrap();
    let kinds: Vec<_> = kinds.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(kinds, ["claimed", "claim_failed"]);
}

#[tokio::test]
async fn a_press_of_the_button_stands_for_the_code_for_a_while_and_once() {
    let bench = Bench::new();
    let claim = bench.node.claim();
    let by_button = || claim.by_button(name("ann"), password("correct horse"), home());
    let shut =
        |claimed: Result<NewSession, Error>| matches!(claimed, Err(Error::Refused(Refusal::ClaimWindow)));
    assert!(!claim.is_window_open() && shut(by_button().await));
    assert!(claim.open_window_until(std::time::Instant::now()));
    assert!(!claim.is_window_open() && shut(by_button().await), "it is over");
    assert!(claim.open_window() && claim.is_window_open());
    assert!(by_button().await.unwrap().principal.may(Scope::Admin));
    assert!(!claim.is_window_open() && !claim.open_window());
    let request = TokenRequest {
        label: "laptop".to_owned(),
        scopes: [Scope::Admin].into_iter().collect(),
        expires: None,
    };
    let late = claim
        .by_button_for_token(name("eve"), None, request, home())
        .await;
    assert!(matches!(
        late,
        Err(Error::Conflict {
            kind: Kind::Claim,
            ..
        })
    ));
}

#[tokio::test]
async fn a_chosen_code_takes_the_place_of_the_nodes_own_until_it_has_an_owner() {
    let bench = Bench::new();
    let own = bench.node.claim().code().unwrap().reveal();
    let chosen = "0123-4567-89AB-CDEF";
    let choose = |options: &mut Options| options.claim_code = Some(ClaimCode::chosen(chosen).unwrap());
    let bench = bench.restart_with(choose);
    let claim = bench.node.claim();
    assert_eq!(claim.code().unwrap().reveal(), chosen);
    let old = claim.by_code(&own, name("eve"), password("password1"), home());
    assert!(matches!(old.await, Err(Error::Refused(Refusal::ClaimCode))));
    // It stays when the node is no longer told.
    let bench = bench.restart();
    let claimed = bench
        .node
        .claim()
        .by_code(chosen, name("ann"), password("correct horse"), home());
    claimed.await.unwrap();
    let bench = bench.restart_with(choose);
    assert!(bench.node.claim().is_claimed() && bench.node.claim().code().is_none());
}

#[tokio::test]
async fn what_was_wrong_before_the_start_is_said_to_the_owner() {
    let note = "first-boot.conf: line 3: unknown key";
    let bench = Bench::new().restart_with(|options| options.note = Some(note.to_owned()));
    let report = bench.node.health().report();
    assert_eq!(report.reasons, [note]);
    assert_eq!(report.state, HealthState::Degraded);
    assert!(bench.restart().node.health().report().reasons.is_empty());
}

#[tokio::test]
async fn a_proof_of_the_code_claims_and_a_proof_for_another_session_does_not() {
    let bench = Bench::new();
    let (claim, node_id) = (bench.node.claim(), bench.node.identity().node_id());
    let code = claim.code().unwrap();
    let request = |proof| ClaimProof {
        exporter: [7; 32],
        proof,
        account: name("ann"),
        password: None,
        token: TokenRequest {
            label: "laptop".to_owned(),
            scopes: [Scope::Admin].into_iter().collect(),
            expires: None,
        },
    };
    let other = claim_mac(&code, ClaimSide::Client, &[8; 32], &node_id);
    let refused = claim.by_proof(request(other), home()).await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::ClaimCode))));
    let right = claim_mac(&code, ClaimSide::Client, &[7; 32], &node_id);
    let proven = claim.by_proof(request(right), home()).await.unwrap();
    assert_eq!(
        proven.answer,
        claim_mac(&code, ClaimSide::Node, &[7; 32], &node_id)
    );
    let principal = bench.node.tokens().find(proven.token.secret.expose()).unwrap();
    assert!(principal.may(Scope::Read));
    let login = bench
        .node
        .accounts()
        .log_in(name("ann"), password("anything"), home());
    assert!(matches!(login.await, Err(Error::Refused(Refusal::Credentials))));
}

#[tokio::test]
async fn a_session_ends_when_idle_when_old_and_when_the_password_changes() {
    let bench = Bench::claimed().await;
    let node = &bench.node;
    let login = || {
        node.accounts()
            .log_in(name("ann"), password("correct horse"), home())
    };
    let first = login().await.unwrap();
    let second = login().await.unwrap();
    assert_ne!(first.cookie.expose(), second.cookie.expose());
    let change = PasswordChange {
        old: password("correct horse"),
        new: password("battery staple"),
        keep: Some(second.cookie.expose().to_owned()),
        address: home(),
    };
    node.accounts()
        .change_password(name("ann"), change)
        .await
        .unwrap();
    assert!(node.sessions().find(first.cookie.expose()).is_none());
    assert!(node.sessions().find(second.cookie.expose()).is_some());
    assert!(login().await.is_err());

    for _ in 0..5 {
        bench.pass(6 * DAY);
        let found = node.sessions().find(second.cookie.expose()).is_some();
        node.tend().await.unwrap();
        if !found {
            break;
        }
    }
    assert!(
        node.sessions().find(second.cookie.expose()).is_none(),
        "older than a month"
    );
    let login = node
        .accounts()
        .log_in(name("ann"), password("battery staple"), home());
    let third = login.await.unwrap();
    bench.pass(7 * DAY);
    assert!(
        node.sessions().find(third.cookie.expose()).is_none(),
        "idle for a week"
    );
    node.sessions().end(third.cookie.expose()).await.unwrap();
}

#[tokio::test]
async fn guesses_are_limited_and_sessions_stay_untouched() {
    let bench = Bench::claimed().await;
    let node = &bench.node;
    let session = node
        .accounts()
        .log_in(name("ann"), password("correct horse"), home())
        .await
        .unwrap();
    let mut evaluated = 0;
    for guess in 0..40_u8 {
        let from = IpAddr::V4(Ipv4Addr::new(10, 0, 0, guess / 2));
        match node
            .accounts()
            .log_in(name("root"), password("guess"), from)
            .await
        {
            Err(Error::Refused(Refusal::Credentials)) => evaluated += 1,
            Err(Error::RateLimited { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(evaluated <= 15, "{evaluated}");
    assert!(node.sessions().find(session.cookie.expose()).is_some());
}

#[tokio::test]
async fn a_token_does_what_it_says_until_it_ends() {
    let bench = Bench::claimed().await;
    bench
        .node
        .accounts()
        .add(name("bob"), Role::Member, None)
        .await
        .unwrap();
    let request = |scopes: &[Scope], expires| TokenRequest {
        label: "phone".to_owned(),
        scopes: scopes.iter().copied().collect(),
        expires,
    };
    let tokens = bench.node.tokens();
    let beyond = tokens.add(name("bob"), request(&[Scope::Admin], None)).await;
    assert!(matches!(beyond, Err(Error::Invalid { what: "scopes", .. })));
    let ingest = tokens
        .add(name("bob"), request(&[Scope::Ingest], None))
        .await
        .unwrap();
    let soon = UNIX_EPOCH + Duration::from_secs(1_800_000_000) + HOUR;
    let short = tokens
        .add(name("bob"), request(&[Scope::Read], Some(soon)))
        .await
        .unwrap();
    assert!(tokens.find(short.secret.expose()).is_some());

    let bench = bench.restart();
    let tokens = bench.node.tokens();
    let principal = tokens.find(ingest.secret.expose()).unwrap();
    assert!(principal.may(Scope::Ingest) && !principal.may(Scope::Read) && !principal.may(Scope::Write));
    bench.pass(HOUR);
    assert!(tokens.find(short.secret.expose()).is_none());
    bench.node.tend().await.unwrap();
    assert_eq!(tokens.list(Some(&name("bob"))).len(), 2);

    let mut events = bench.node.events().subscribe(None);
    let foreign = tokens.revoke(ingest.id, Some(name("ann"))).await;
    assert!(matches!(foreign, Err(Error::Missing { .. })));
    tokens.revoke(ingest.id, Some(name("bob"))).await.unwrap();
    assert!(tokens.find(ingest.secret.expose()).is_none());
    assert!(matches!(
        events.next().await,
        Delivery::Event(_, Event::TokenRevoked { id }) if id == ingest.id
    ));
}

#[tokio::test]
async fn an_account_that_goes_takes_its_tokens_along_and_one_owner_stays() {
    let bench = Bench::claimed().await;
    let node = &bench.node;
    let last = node.accounts().remove(name("ann")).await;
    assert!(matches!(last, Err(Error::Refused(Refusal::LastOwner))));
    let taken = node.accounts().add(name("ann"), Role::Member, None).await;
    assert!(matches!(taken, Err(Error::Conflict { .. })));
    node.accounts()
        .add(name("bob"), Role::Owner, Some(password("battery staple")))
        .await
        .unwrap();
    let request = TokenRequest {
        label: String::new(),
        scopes: [Scope::Write].into_iter().collect(),
        expires: None,
    };
    let token = node.tokens().add(name("ann"), request).await.unwrap();
    node.accounts().remove(name("ann")).await.unwrap();
    assert!(node.tokens().find(token.secret.expose()).is_none());
    let bench = bench.restart();
    assert!(bench.node.tokens().find(token.secret.expose()).is_none());
    assert_eq!(bench.node.accounts().list().len(), 1);
}

#[tokio::test]
async fn the_database_holds_no_usable_secret() {
    let bench = Bench::claimed().await;
    let request = TokenRequest {
        label: "laptop".to_owned(),
        scopes: [Scope::Admin].into_iter().collect(),
        expires: None,
    };
    let token = bench.node.tokens().add(name("ann"), request).await.unwrap();
    let Bench { dir, node, .. } = bench;
    drop(node);
    let mut bytes = Vec::new();
    for file in ["node.db", "node.db-wal"] {
        bytes.extend(std::fs::read(dir.path().join("data").join(file)).unwrap_or_default());
    }
    let secret = token.secret.expose();
    let raw = data_encoding::BASE64URL_NOPAD
        .decode(&secret.as_bytes()[4..])
        .unwrap();
    for needle in [secret.as_bytes(), &raw, b"correct horse"] {
        assert!(!bytes.windows(needle.len()).any(|window| window == needle));
    }
}

#[tokio::test]
async fn a_guess_costs_the_same_work_whether_or_not_there_is_such_an_account() {
    let bench = Bench::claimed().await;
    let accounts = bench.node.accounts();
    for guess in 0..8_u8 {
        // From another address each time, and later: none of these is limited.
        bench.pass(HOUR);
        let address = IpAddr::V4(Ipv4Addr::new(192, 168, 2, guess));
        let who = if guess % 2 == 0 { "ann" } else { "nobody" };
        let before = accounts.passwords_hashed();
        let refused = accounts.log_in(name(who), password("wrong guess"), address).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::Credentials))));
        assert_eq!(accounts.passwords_hashed() - before, 1, "{who}");
    }
}
