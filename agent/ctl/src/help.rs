//! The command line with its help in the reader's language. The English words are in [`crate::args`].

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};

use crate::args::{Args, Lang, Shell};
use crate::words::lang_of_environment;

/// Reads the command line; prints help, version and what is wrong with it. `Err`: there is nothing more to do.
pub fn parse(arguments: Vec<OsString>) -> Result<Args, ExitCode> {
    let lang = lang_of(&arguments);
    let read =
        command_in(lang).try_get_matches_from(arguments).and_then(|found| Args::from_arg_matches(&found));
    read.map_err(|error| {
        // Where nobody reads, the exit code still says it.
        let _ = error.print();
        let shows_help = matches!(
            error.kind(),
            ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        );
        if lang == Lang::Ja && !shows_help {
            // What clap says is English.
            let _ = writeln!(
                std::io::stderr().lock(),
                "\nコマンドの書き方が正しくありません。使い方は seimonctl --help で見られます。"
            );
        }
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

/// The command line, described in the reader's language.
fn command_in(lang: Lang) -> Command {
    match lang {
        Lang::Ja => help_command(japanese(Args::command(), "")),
        Lang::En => Args::command(),
    }
}

/// A script for the shell; where it shows descriptions, in the reader's language.
pub(crate) fn completions(shell: Shell, lang: Lang) -> Vec<u8> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let (mut command, mut script) = (command_in(lang), Vec::new());
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

/// The language is wanted before the command line can be understood.
fn lang_of(arguments: &[OsString]) -> Lang {
    let mut words = arguments.iter().filter_map(|argument| argument.to_str());
    while let Some(word) = words.next() {
        let value = match word.strip_prefix("--lang") {
            Some("") => words.next(),
            Some(joined) => joined.strip_prefix('='),
            None => None,
        };
        match value {
            Some("ja") => return Lang::Ja,
            Some("en") => return Lang::En,
            Some(_) | None => {}
        }
    }
    lang_of_environment()
}

const HEADING: &str = "オプション";
/// Where clap shows its own --help, too.
const LAST: usize = 999;
const GLOBAL: &str = "どのコマンドにも使えるオプション";

/// Replaces every text that help shows. `name`: the words behind `seimonctl`.
fn japanese(command: Command, name: &str) -> Command {
    let (about, after) = of_command(name);
    // Headings come in the order of their first arguments.
    let (mut own, options): (Vec<_>, Vec<_>) = command.get_arguments().cloned().partition(Arg::is_positional);
    let subcommands: Vec<String> =
        command.get_subcommands().map(|subcommand| subcommand.get_name().to_owned()).collect();
    let mut command = command
        .about(about)
        .long_about(None::<&str>)
        .after_help(after)
        .help_template("{about}\n\n使い方: {usage}\n\n{all-args}{after-help}")
        .subcommand_help_heading("コマンド")
        .disable_help_flag(true)
        .disable_version_flag(true);
    let flag = |id: &'static str, short, action| {
        Arg::new(id).long(id).short(short).action(action).display_order(LAST)
    };
    own.push(flag("help", 'h', ArgAction::Help));
    if name.is_empty() {
        own.push(flag("version", 'V', ArgAction::Version));
    }
    own.extend(options);
    for argument in own {
        let id = argument.get_id().as_str();
        let heading = match id {
            "socket" | "json" | "lang" => GLOBAL,
            _ if argument.is_positional() => "引数",
            _ => HEADING,
        };
        let words = argument.clone().help(of_argument(name, id)).help_heading(heading);
        // The words of clap's own are English.
        let words = if matches!(id, "lang" | "shell" | "what") {
            words.hide_possible_values(true)
        } else if matches!(id, "days" | "file" | "board") {
            words.hide_default_value(true)
        } else {
            words
        };
        command = match id {
            "help" | "version" => command.arg(words),
            _ => command.mut_arg(id, |_| words),
        };
    }
    for subcommand in subcommands {
        let name = format!("{name} {subcommand}");
        command = command.mut_subcommand(&subcommand, |inner| japanese(inner, name.trim_start()));
    }
    command
}

/// The command `help` exists only once the others are built.
fn help_command(mut command: Command) -> Command {
    command.build();
    about_help(command)
}

fn about_help(command: Command) -> Command {
    let subcommands: Vec<String> =
        command.get_subcommands().map(|subcommand| subcommand.get_name().to_owned()).collect();
    subcommands.iter().fold(command, |command, name| {
        command.mut_subcommand(name, |inner| match name.as_str() {
            "help" => inner.about("この説明、または指定したコマンドの説明を表示します。"),
            _ => about_help(inner),
        })
    })
}

/// What a command does, and what stands at the end of its help. Lines are short enough for a screen of 80 columns.
fn of_command(name: &str) -> (&'static str, &'static str) {
    match name {
        "" => (
            "学校のゲートウェイの状態を見たり、指示を出したりします。",
            "\
ことば:
  ゾーン (zone)      校内ネットワークの区分。教職員用、児童生徒用など
  サービス群 (group) いっしょに移すサービスのまとまり
  経路 (path)        学校から外への道。閉域網 (closed)、直接 (direct) など
  計画 (plan)        以上を定めたファイル。ゾーンなどの名前は計画で決めます

終了コード:
  0  できた
  1  断られた、または失敗した（理由を表示します）
  2  コマンドの書き方が正しくない
  3  エージェントに接続できない
  4  許可されていない

例:
  seimonctl status
  seimonctl explain --from 10.1.0.23 --to saas.example.jp
  seimonctl migrate start affairs/affairs",
        ),
        "status" => ("今の状態を 1 画面で見ます。正常か、どの経路か、何をすべきか。", ""),
        "plan" => ("計画を検査します。使用中の計画を見る、比べるのもこれです。", ""),
        "plan check" => (
            "計画のファイルを検査します。ゲートウェイがなくても使えます。",
            "例:\n  seimonctl plan check site.toml --board board.toml",
        ),
        "plan show" => ("使用中の計画を表示します。", ""),
        "plan diff" => ("計画のファイルを適用すると変わることを表示します。何も変えません。", ""),
        "apply" => (
            "計画のファイルを適用します。断るときは、理由をすべて示します。",
            "\
例:
  seimonctl apply site.toml --dry-run    何が変わるかを見る
  seimonctl apply site.toml              適用する",
        ),
        "explain" => (
            "宛先へ届くか、理由、経路、外から見えるアドレスを答えます。",
            "\
例:
  seimonctl explain --from 10.1.0.23 --to saas.example.jp
  seimonctl explain --from 10.2.0.40 --to 203.0.113.10:443",
        ),
        "migrate" => (
            "サービス群を別の経路へ移します。進み具合も見られます。",
            "\
例:
  seimonctl migrate status
  seimonctl migrate start learning/learning
  seimonctl migrate start affairs/affairs --to direct
  seimonctl migrate rollback affairs/affairs",
        ),
        "migrate start" => (
            "移行を始めます。自動で進み、利用者に支障が出そうなら自動で戻ります。\n\
             始められないときは、理由をすべて示して断ります。",
            "",
        ),
        "migrate pause" => ("移行を今のところで止めます。その間も、回線が切れれば自動で戻ります。", ""),
        "migrate resume" => ("止めておいた移行を再開します。", ""),
        "migrate rollback" => ("前の経路へ戻します。作業中の人は、終わるまで今の経路を使えます。", ""),
        "migrate status" => ("移行の進み具合を表示します。", ""),
        "egress" => (
            "外からどの番号に見えるか、それをだれに登録してもらうか。",
            "\
例:
  seimonctl --lang ja egress letter affairs > letter.txt",
        ),
        "egress letter" => ("今の番号の登録を、サービス提供元に頼む文を書きます。", ""),
        "hub" => (
            "センター（ハブ）で使います。学校ごとの状態と、届く範囲。",
            "\
例:
  seimonctl hub status
  seimonctl hub explain --from asahi-es --to 10.50.0.53",
        ),
        "hub status" => ("ハブと、学校ごとの状態を 1 校 1 行で表示します。", ""),
        "hub explain" => ("学校からその宛先へ届くか、なぜか、相手からどう見えるか。", ""),
        "update" => (
            "新しいイメージに更新します。支障があれば自動で元に戻ります。",
            "\
例:
  seimonctl update check https://updates.example.jp/seimon.simg
  seimonctl update stage https://updates.example.jp/seimon.simg
  seimonctl update apply
  seimonctl update status",
        ),
        "update status" => ("動いている版、もう一方の版、前の版をやめた理由を表示します。", ""),
        "update check" => ("イメージの署名と機種を確かめます。何も書き込みません。", ""),
        "update stage" => (
            "使っていない側のスロットに書き込み、確かめます。\n\
             apply するまで、動作は変わりません。",
            "",
        ),
        "update apply" => (
            "再起動して新しいイメージを試します。利用者の通信が良好なら\n\
             自動で確定し、悪くなれば自動で戻ります。",
            "",
        ),
        "update confirm" => ("試用の結果を待たずに、動作中のイメージを確定します。", ""),
        "update rollback" => ("再起動して、前のイメージに戻します。", ""),
        "reset" => (
            "設定を消して再起動します。",
            "\
例:
  seimonctl reset factory --yes    学校の設定を消す（識別情報は残る）
  seimonctl reset wipe --yes       すべて消す（手放す前に）",
        ),
        "wireguard" => (
            "トンネルの経路の鍵を、通信を切らずに取り替えます。鍵も作れます。",
            "\
例:
  seimonctl wireguard keygen hub.key   センターの鍵を作り、公開鍵を表示
  seimonctl wireguard rotate closed    次の鍵を作る（公開鍵をセンターへ登録）
  seimonctl wireguard switch closed    次の鍵を使う（だめなら自動で戻る）",
        ),
        "wireguard rotate" => ("次の鍵を作り、公開鍵を表示します。今の鍵はそのまま使います。", ""),
        "wireguard switch" => ("次の鍵を使います。応答がなければ、15 秒で今の鍵に戻ります。", ""),
        "wireguard keygen" => ("秘密鍵をファイルに作り、公開鍵を表示します。", ""),
        "wireguard pubkey" => ("秘密鍵に対応する公開鍵を表示します。", ""),
        "pac" => (
            "ゾーンに今配っているプロキシの自動設定 (PAC) を表示します。",
            "例:\n  seimonctl pac --zone affairs",
        ),
        "events" => (
            "起動後に起きたことを表示します。直近の 1,000 件までです。",
            "\
例:
  seimonctl events
  seimonctl --json events --follow | jq .kind",
        ),
        "acceptance" => (
            "開通試験をします。だめなものは、だれの仕事かを示します。",
            "\
例:
  seimonctl acceptance
  seimonctl --lang ja acceptance --html result.html --pdf result.pdf
  seimonctl acceptance verify result.pdf",
        ),
        "acceptance verify" => ("開通試験の結果が、署名されたままかを確かめて表示します。", ""),
        "sheet" => (
            "箱のそばに貼る紙を作ります。連絡先、線の差し込み口など。",
            "\
例:
  seimonctl --lang ja sheet --pdf sheet.pdf
  seimonctl sheet --plan site.toml --board board.toml --html sheet.html",
        ),
        "line" => ("回線の契約について調べます。", ""),
        "line may-cancel" => ("回線を解約できるか、まだ使っているものは何かを答えます。", ""),
        "diagnostics" => ("助ける人のための資料をまとめます。個人の情報は入りません。", ""),
        "completions" => (
            "Tab キーで続きを補うための、シェルのスクリプトを表示します。",
            "\
例:
  seimonctl completions bash > /etc/bash_completion.d/seimonctl
  seimonctl completions zsh > /usr/local/share/zsh/site-functions/_seimonctl
  seimonctl completions fish > /etc/fish/completions/seimonctl.fish",
        ),
        _ => ("", ""),
    }
}

fn of_argument(command: &str, id: &str) -> &'static str {
    match id {
        "socket" => {
            "エージェントの制御ソケット。指定がなければ環境変数\n\
             SEIMON_SOCKET、それもなければ /run/seimon/control.sock"
        }
        "json" => "エージェントの返答を JSON のまま表示する（プログラム用。\n形は docs/control.schema.json）",
        "lang" => {
            "表示の言語: ja（日本語）または en（英語）。指定がなければ\n\
             環境変数 LC_ALL、LC_MESSAGES、LANG に従う"
        }
        "file" if command == "diagnostics" => "書き出すファイル [既定値: seimon-diagnostics.tar]",
        "file" if command == "acceptance verify" => "結果のページまたは記録（HTML、PDF、データ）",
        "file" if command == "wireguard keygen" => {
            "作るファイル。すでにあれば何もしない。指定がなければ、\n秘密鍵そのものを表示する"
        }
        "file" if command == "wireguard pubkey" => "秘密鍵のファイル。- または指定なしは標準入力",
        "file" => "計画のファイル (TOML)",
        "html" => "ページを HTML で書き出す（1 つのファイルで完結）",
        "pdf" => "ページを PDF（A4）で書き出す",
        "font" => "PDF の書体のファイル（日本語を含むもの）。指定がなければ、\n機器に入っているもの",
        "save" => "署名された結果を、データとしても保存する",
        "key" => "箱の公開鍵（前のページにあるもの）。別の箱の結果なら断る",
        "plan" => "計画のファイル (TOML)。指定がなければ、使用中の計画",
        "line" => "回線。計画にある名前で書く",
        "zone" => "ゾーン。計画の [proxy] にある名前で書く",
        "service" => "サービス。計画にある名前で書く",
        "path" => "経路。計画にある、トンネルの経路の名前で書く",
        "days" => "使われない日が何日続けばよいか [既定値: 35]",
        "board" if command == "sheet" => {
            "機種定義のファイル（差し込み口の名前）\n[既定値: /etc/seimon/board.toml]"
        }
        "board" => {
            "ゲートウェイの機種定義のファイル（差込口など）。\nゲートウェイでは /etc/seimon/board.toml"
        }
        "dry_run" => "何が変わるかを表示するだけで、何も変えない",
        "source" => "https の URL、またはゲートウェイ上のファイル",
        "what" => "消すもの: factory（学校の設定）または wipe（すべて）",
        "yes" => "確認済み。付けなければ何もしない",
        "from" if command == "hub explain" => {
            "ハブの計画にある学校の名前、またはトンネルから来る\nIP アドレス"
        }
        "to" if command == "hub explain" => "宛先の IP アドレス。ハブ自身のポート 53 は、\n名前の問い合わせ",
        "from" => "校内の端末の IP アドレス",
        "to" if command == "explain" => {
            "宛先の名前または IP アドレス。ポートがなければ、\nサービスの最初のポート、それもなければ 443"
        }
        "to" => "移す先の経路。指定がなければ、計画にある順の最後の経路",
        "which" => "ゾーン/サービス群。seimonctl status に出るとおりに書く",
        "follow" => "これから起きることも続けて表示する。終わるには Ctrl-C",
        "since" => "この番号より後のものだけを表示する。指定がなければすべて",
        "shell" => "スクリプトを読むシェル: bash、zsh、fish のいずれか",
        "help" => "この説明を表示する",
        "version" => "版を表示する",
        _ => "",
    }
}
