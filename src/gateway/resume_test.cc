// Streams that lose their worker, without sockets: what the client has, what the next worker is asked, what it adds.
#include "gateway/resume.h"

#include "base/prng.h"
#include "wire/openai_response.h"

namespace baton::gateway {
namespace {

using Api = Resume::Api;
using testing::HasSubstr;

const wire::Head kFirst{.id = "cmpl-1", .model = "m", .created = 100}, kSecond{.id = "cmpl-2", .model = "other", .created = 200};

std::string chunk(Api api, const wire::Head& head, std::string text, std::string finish = "",
                  const wire::Usage* usage = nullptr) {
  wire::Choice choice{.text = std::move(text), .stop = {.finish_reason = std::move(finish)}};
  return wire::sse_event(api == Api::kChat ? wire::chat_chunk(head, choice, wire::Delta::kContent, usage)
                                           : wire::completion_chunk(head, choice, usage));
}
std::string role(const wire::Head& head) { return wire::sse_event(wire::chat_chunk(head, {}, wire::Delta::kRole, nullptr)); }
std::string usage(Api api, const wire::Head& head, int64_t prompt, int64_t completion) {
  return wire::sse_event(wire::usage_chunk(head, api == Api::kChat, {.prompt_tokens = prompt, .completion_tokens = completion}));
}
std::string pass(Resume& resume, std::string_view bytes) { return std::string(resume.pass(bytes)); }

TEST(Resume, AWholeStreamPassesByteForByteHoweverItIsCut) {
  for (Api api : {Api::kCompletions, Api::kChat}) {
    const std::string stream =
        cat(api == Api::kChat ? role(kFirst) : "", ": comment\n\n", chunk(api, kFirst, "a \"b\" \\ \n"),
            chunk(api, kFirst, "c\xC3\xA9"), chunk(api, kFirst, "", "stop"), usage(api, kFirst, 3, 4), wire::kSseDone);
    for (size_t piece = 1; piece < stream.size(); ++piece) {
      Resume resume(api);
      std::string out;
      for (size_t at = 0; at < stream.size(); at += piece) out += resume.pass(std::string_view(stream).substr(at, piece));
      out += resume.flush();
      ASSERT_EQ(out, stream) << piece;
      EXPECT_TRUE(resume.complete());
    }
  }
}

TEST(Resume, ClientsNeverSeeHalfAnEvent) {
  Resume resume(Api::kCompletions);
  const std::string one = chunk(Api::kCompletions, kFirst, "one");
  EXPECT_EQ(pass(resume, one + "data: {\"half"), one);
  EXPECT_EQ(resume.ask(R"({"model":"m","prompt":"p","stream":true})")->with, R"({"model":"m","prompt":"pone"})");
}

// A replacement character stands for bytes that the text has lost: asked for again, it would be another prompt.
TEST(Resume, BytesThatAreNoTextCannotBeAskedForAgain) {
  for (Api api : {Api::kCompletions, Api::kChat}) {
    Resume resume(api);
    pass(resume, chunk(api, kFirst, "good") + chunk(api, kFirst, "\xEF\xBF\xBD") + chunk(api, kFirst, " more"));
    const auto question = resume.ask(R"({"model":"m","prompt":"p","messages":[{"role":"user","content":"x"}],"stream":true})");
    ASSERT_FALSE(question);
    EXPECT_THAT(question.error().message, HasSubstr("no text"));
  }
}

TEST(Resume, TokensThatReadBackAsOneAreCountedAsTheyWereSampled) {
  const std::string body = R"({"model":"m","prompt":"A litt","max_tokens":10,"stream":true})";
  Resume resume(Api::kCompletions);
  pass(resume, chunk(Api::kCompletions, kFirst, "le") + chunk(Api::kCompletions, kFirst, " more"));  // "litt" "le" reads back as "little"
  ASSERT_TRUE(resume.ask(body));
  const auto next = resume.next(body, Resume::Count{.prompt = 2, .sent = 1});
  EXPECT_EQ(parse_json(next.body)->find("max_tokens")->as_int(), 8);
}

TEST(Resume, CompletionGoesOnWhereItStopped) {
  const std::string body =
      R"({ "model":"m", "prompt":"Once upon", "max_tokens":10, "min_tokens":4, "stream":true, "x":18446744073709551615,
    "stream_options":{"include_usage":true}, "temperature":0 })";
  Resume resume(Api::kCompletions);
  pass(resume, chunk(Api::kCompletions, kFirst, " a") + chunk(Api::kCompletions, kFirst, " time\n"));
  const auto question = resume.ask(body);
  ASSERT_TRUE(question) << question.error().message;
  EXPECT_EQ(question->with, R"({"model":"m","prompt":"Once upon a time\n"})");
  EXPECT_EQ(question->without, R"({"model":"m","prompt":"Once upon"})");
  const auto next = resume.next(body, Resume::Count{.prompt = 2, .sent = 3});
  EXPECT_EQ(next.tail, "");
  const auto sent = parse_json(next.body);
  EXPECT_EQ(sent->find("prompt")->text, "Once upon a time\n");
  EXPECT_EQ(sent->find("max_tokens")->as_int(), 7);
  EXPECT_EQ(sent->find("min_tokens")->as_int(), 1);
  EXPECT_THAT(next.body, HasSubstr("18446744073709551615"));
  const std::string more =
      pass(resume, chunk(Api::kCompletions, kSecond, "there") + chunk(Api::kCompletions, kSecond, " was", "length") +
                       usage(Api::kCompletions, kSecond, 5, 7) + std::string(wire::kSseDone));
  EXPECT_EQ(more, chunk(Api::kCompletions, kFirst, "there") + chunk(Api::kCompletions, kFirst, " was", "length") +
                      usage(Api::kCompletions, kFirst, 2, 10) + std::string(wire::kSseDone));
  EXPECT_TRUE(resume.complete());
}

TEST(Resume, ChatGoesOnAsItsOwnFinalMessage) {
  const std::string body =
      R"({"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"max_completion_tokens":50,"max_tokens":9,"temperature":0.7})";
  Resume resume(Api::kChat);
  pass(resume, role(kFirst) + chunk(Api::kChat, kFirst, "Well") + chunk(Api::kChat, kFirst, ".\n\n"));
  const auto question = resume.ask(body);
  ASSERT_TRUE(question) << question.error().message;
  EXPECT_EQ(
      question->with,
      R"({"model":"m","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"Well."}],"add_generation_prompt":false,"continue_final_message":true})");
  EXPECT_EQ(question->without, R"({"model":"m","messages":[{"role":"user","content":"hi"}]})");
  const auto next = resume.next(body, Resume::Count{.prompt = 9, .sent = 2});
  EXPECT_EQ(
      next.body,
      R"({"model":"m","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"Well."}],"stream":true,"max_completion_tokens":48,"max_tokens":9,"temperature":0.7,"continue_final_message":true,"add_generation_prompt":false})");
  // The role comes once, the white space that the template cut off is said again and swallowed.
  EXPECT_EQ(pass(resume, role(kSecond) + chunk(Api::kChat, kSecond, "\n") + chunk(Api::kChat, kSecond, "\nYou") +
                             chunk(Api::kChat, kSecond, "!", "stop")),
            chunk(Api::kChat, kFirst, "You") + chunk(Api::kChat, kFirst, "!", "stop"));
  // Lost again: the whole text counts.
  const auto again = resume.ask(body);
  ASSERT_TRUE(again);
  EXPECT_THAT(again->with, HasSubstr(R"("content":"Well.\n\nYou!")"));
}

TEST(Resume, AClientsOwnContinuationIsContinued) {
  const std::string body =
      R"({"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"We"}],"continue_final_message":true,"add_generation_prompt":false})";
  Resume resume(Api::kChat);
  pass(resume, role(kFirst) + chunk(Api::kChat, kFirst, "ll"));
  ASSERT_TRUE(resume.ask(body));
  const auto next = resume.next(body, std::nullopt);
  EXPECT_EQ(parse_json(next.body)->find("messages")->items.size(), 2u);
  EXPECT_THAT(next.body, HasSubstr(R"({"role":"assistant","content":"Well"})"));
}

TEST(Resume, NothingSentYetMeansTheSameQuestion) {
  const std::string body = R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":5})";
  Resume resume(Api::kChat);
  pass(resume, role(kFirst));
  EXPECT_EQ(resume.ask(body)->with, "");
  EXPECT_EQ(resume.next(body, std::nullopt).body, body);
  EXPECT_EQ(pass(resume, role(kSecond) + chunk(Api::kChat, kSecond, "x")), chunk(Api::kChat, kFirst, "x"));
}

TEST(Resume, OnlyTheEndIsMissing) {
  const std::string body = R"({"prompt":"p","max_tokens":2,"stream_options":{"include_usage":true}})";
  Resume resume(Api::kCompletions);
  pass(resume, chunk(Api::kCompletions, kFirst, " a") + chunk(Api::kCompletions, kFirst, " b", "length"));
  const auto next = resume.next(body, Resume::Count{.prompt = 4, .sent = 2});
  EXPECT_EQ(next.body, "");
  EXPECT_THAT(next.tail, testing::AllOf(HasSubstr(R"("usage":{"prompt_tokens":4,"total_tokens":6,"completion_tokens":2})"),
                                        testing::EndsWith("data: [DONE]\n\n")));
  EXPECT_THAT(next.tail, testing::Not(HasSubstr("finish_reason")));
  Resume all(Api::kCompletions);  // every token was sent, and no finish_reason
  pass(all, chunk(Api::kCompletions, kFirst, " a") + chunk(Api::kCompletions, kFirst, " b"));
  EXPECT_EQ(
      all.next(body, std::nullopt).tail,
      R"(data: {"id":"cmpl-1","object":"text_completion","created":100,"model":"m","choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length","stop_reason":null}]})"
      "\n\ndata: [DONE]\n\n");
}

TEST(Resume, AWorkersOwnErrorIsHeldBackAndAClientsIsNot) {
  Resume resume(Api::kCompletions);
  const std::string one = chunk(Api::kCompletions, kFirst, "one");
  const std::string error =
      "data: {\"error\":{\"message\":\"the engine is shutting down\",\"type\":\"x\",\"param\":null,\"code\":503}}\n\n";
  EXPECT_EQ(pass(resume, one + error + std::string(wire::kSseDone)), one);
  EXPECT_TRUE(resume.failed());
  EXPECT_EQ(resume.failure(), error);
  Resume other(Api::kCompletions);
  const std::string bad = "data: {\"error\":{\"message\":\"no\",\"code\":400}}\n\n";
  EXPECT_EQ(pass(other, one + bad), one + bad);
  EXPECT_FALSE(other.failed());
}

TEST(Resume, RefusesWhatTextAloneCannotContinue) {
  const char* const kCompletions[] = {R"("n":2)",
                                      R"("logprobs":0)",
                                      R"("logprobs":3)",
                                      R"("prompt_logprobs":1)",
                                      R"("echo":true)",
                                      R"("best_of":2)",
                                      R"("seed":5)",
                                      R"("seed":5,"temperature":0.5)",
                                      R"("frequency_penalty":0.1)",
                                      R"("presence_penalty":-1)",
                                      R"("bad_words":["x"])",
                                      R"("repetition_detection":{"max_pattern_size":3,"min_count":2})",
                                      R"("response_format":{"type":"json_object"})",
                                      R"("guided_regex":"a+")",
                                      R"("structured_outputs":{"choice":["a"]})",
                                      R"("suffix":"s")",
                                      R"("return_token_ids":true)",
                                      R"("truncate_prompt_tokens":4)"};
  for (const char* field : kCompletions) {
    Resume resume(Api::kCompletions);
    pass(resume, chunk(Api::kCompletions, kFirst, "a"));
    EXPECT_FALSE(resume.ask(cat(R"({"prompt":"p",)", field, "}"))) << field;
  }
  const char* const kFine[] = {R"("n":1)",
                               R"("logprobs":null)",
                               R"("echo":false)",
                               R"("seed":5,"temperature":0)",
                               R"("frequency_penalty":0.0)",
                               R"("response_format":{"type":"text"})",
                               R"("stop":["x"])",
                               R"("logit_bias":{"5":1})",
                               R"("repetition_penalty":1.1)"};
  for (const char* field : kFine) {
    Resume resume(Api::kCompletions);
    pass(resume, chunk(Api::kCompletions, kFirst, "a"));
    EXPECT_TRUE(resume.ask(cat(R"({"prompt":"p",)", field, "}"))) << field;
  }
  Resume chat(Api::kChat);
  pass(chat, role(kFirst) + chunk(Api::kChat, kFirst, "a"));
  EXPECT_FALSE(chat.ask(R"({"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function"}]})"));
  EXPECT_FALSE(chat.ask(R"({"messages":[{"role":"user","content":"x"}],"logprobs":true})"));
  EXPECT_TRUE(chat.ask(R"({"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function"}],"tool_choice":"none"})"));
  Resume reasoning(Api::kChat);
  pass(reasoning, role(kFirst) + "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n");
  EXPECT_FALSE(reasoning.ask(R"({"messages":[{"role":"user","content":"x"}]})"));
  Resume ids(Api::kCompletions);
  EXPECT_FALSE(ids.ask(R"({"prompt":[1,2,3]})"));
  EXPECT_FALSE(ids.ask(R"({"prompt":["a","b"]})"));
  EXPECT_FALSE(ids.ask("[]"));
}

TEST(Resume, UnknownShapesPassUntouched) {
  for (std::string stream :
       {"data: 0\n\ndata: 1\n\n", "event: x\ndata: {}\n\n", "not sse at all", "data: {\"choices\":[1,2]}\n\n"}) {
    Resume resume(Api::kChat);
    EXPECT_EQ(pass(resume, stream) + std::string(resume.flush()), stream);
  }
}

// An event of a worker that was asked for token ids.
std::string with_ids(Api api, const wire::Head& head, std::string text, std::vector<int32_t> ids, std::string finish = "",
                     std::optional<std::vector<int32_t>> prompt = {}) {
  wire::Choice choice{.text = std::move(text), .stop = {.finish_reason = std::move(finish)}, .token_ids = std::move(ids)};
  choice.prompt_token_ids = std::move(prompt);
  return wire::sse_event(api == Api::kChat ? wire::chat_chunk(head, choice, wire::Delta::kContent, nullptr)
                                           : wire::completion_chunk(head, choice, nullptr));
}
std::string role_with_ids(const wire::Head& head, std::vector<int32_t> prompt) {
  return wire::sse_event(wire::chat_chunk(head, {.prompt_token_ids = std::move(prompt)}, wire::Delta::kRole, nullptr));
}

TEST(Resume, TokenIdsAreAskedForWhereTheyHelp) {
  EXPECT_EQ(Resume::asking_ids(Api::kCompletions, R"({ "prompt":"p", "x":18446744073709551615 })"),
            R"({ "prompt":"p", "x":18446744073709551615 ,"return_token_ids":true})");
  for (const char* body : {R"({"prompt":"p","n":2})", R"({"prompt":"p","return_token_ids":true})", R"({"prompt":[1]})", "[]", ""})
    EXPECT_EQ(Resume::asking_ids(Api::kCompletions, body), "") << body;
  EXPECT_EQ(Resume::asking_ids(Api::kCompletions, cat(R"({"prompt":")", std::string(1 << 20, 'x'), "\"}")), "");
}

TEST(Resume, IdsThatWeAskedForAreNotShownHoweverTheStreamIsCut) {
  for (Api api : {Api::kCompletions, Api::kChat}) {
    const bool chat = api == Api::kChat;
    const std::string told = "say \"token_ids\":[1,2]",
                      spaced = "data: {\"choices\": [{\"token_ids\": [ 5 , -6 ], \"index\": 0, ";
    const std::string rest = chat ? "\"delta\": {\"content\": \"y\"}}]}\n\n" : "\"text\": \"y\"}]}\n\n";
    const std::string from =
        cat(chat ? role_with_ids(kFirst, {1, 2}) : "",
            with_ids(api, kFirst, "a", {3}, "", chat ? std::nullopt : std::optional(std::vector<int32_t>{1, 2})), ": comment\n\n",
            with_ids(api, kFirst, told, {4, 5, 6}), spaced, rest, with_ids(api, kFirst, "", {}),
            with_ids(api, kFirst, "", {7}, "stop"), usage(api, kFirst, 3, 4), wire::kSseDone);
    const std::string to = cat(chat ? role(kFirst) : "", chunk(api, kFirst, "a"), ": comment\n\n", chunk(api, kFirst, told),
                               "data: {\"choices\": [{\"index\": 0, ", rest, chunk(api, kFirst, ""),
                               chunk(api, kFirst, "", "stop"), usage(api, kFirst, 3, 4), wire::kSseDone);
    for (size_t piece = 1; piece < from.size(); ++piece) {
      Resume resume(api, true);
      std::string out;
      for (size_t at = 0; at < from.size(); at += piece) out += resume.pass(std::string_view(from).substr(at, piece));
      out += resume.flush();
      ASSERT_EQ(out, to) << piece;
    }
    Resume not_ours(api);
    EXPECT_EQ(pass(not_ours, from), from) << "the client's own";
  }
}

// "rain" and "storm" were sampled, and "rainstorm" is one token too.
TEST(Resume, ACompletionGoesOnFromTheIdsThatWereSampled) {
  const std::string body = R"({"model":"m","prompt":"Once","max_tokens":10,"min_tokens":9,"stream":true})";
  Resume resume(Api::kCompletions, true);
  EXPECT_EQ(resume.ask_ids(body, false).with, "") << "nothing was sent";
  pass(resume, with_ids(Api::kCompletions, kFirst, " rain", {8}, "", std::vector<int32_t>{1, 7}) +
                   with_ids(Api::kCompletions, kFirst, "", {9}) + with_ids(Api::kCompletions, kFirst, "storm", {10}) +
                   with_ids(Api::kCompletions, kFirst, "", {11}));
  ASSERT_TRUE(resume.ask(body));
  const auto ids = resume.ask_ids(body, false);
  EXPECT_EQ(ids.with, R"({"model":"m","tokens":[1,7,8,9,10]})") << "11 was not text yet";
  EXPECT_EQ(ids.without, R"({"model":"m","tokens":[1,7]})");
  EXPECT_FALSE(resume.count_ids("<s>Once rainstor", "<s>Once")) << "text was held back";
  EXPECT_FALSE(resume.count_ids("<s>Twice rainstorm", "<s>Once"));
  const auto count = resume.count_ids("<s>Once rainstorm", "<s>Once");
  ASSERT_TRUE(count);
  EXPECT_EQ(resume.next(body, count).body,
            R"({"model":"m","prompt":[1,7,8,9,10],"max_tokens":7,"min_tokens":6,"stream":true,"return_token_ids":true})");
  EXPECT_EQ(pass(resume, with_ids(Api::kCompletions, kSecond, "y", {11}, "", std::vector<int32_t>{1, 7, 8, 9, 10}) +
                             usage(Api::kCompletions, kSecond, 5, 7)),
            chunk(Api::kCompletions, kFirst, "y") + usage(Api::kCompletions, kFirst, 2, 10));
  EXPECT_EQ(resume.ask_ids(body, false).with, R"({"model":"m","tokens":[1,7,8,9,10,11]})") << "lost again";
  const auto again = resume.next(body, resume.count_ids("Once rainstormy", "Once"));
  EXPECT_THAT(again.body, testing::AllOf(HasSubstr(R"("prompt":[1,7,8,9,10,11])"), HasSubstr(R"("max_tokens":6)")));
}

TEST(Resume, AChatGoesOnFromItsTextAndCountsItsIds) {
  const std::string body =
      R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":10,"stream_options":{"include_usage":true}})";
  Resume resume(Api::kChat, true);
  pass(resume, role_with_ids(kFirst, {1, 2, 3}) + with_ids(Api::kChat, kFirst, "rain", {8}) +
                   with_ids(Api::kChat, kFirst, "storm", {9, 10}));
  const auto count = resume.count_ids("hi:rainstorm", "hi:");
  ASSERT_TRUE(count);
  const auto next = resume.next(body, count);
  EXPECT_THAT(next.body,
              testing::AllOf(HasSubstr(R"({"role":"assistant","content":"rainstorm"})"), HasSubstr(R"("max_tokens":7)")));
  // The next worker reads the text as two tokens; the client's prompt had three, and its answer has three and four.
  EXPECT_EQ(pass(resume, role_with_ids(kSecond, {1, 2, 3, 20, 21}) + usage(Api::kChat, kSecond, 5, 4)),
            usage(Api::kChat, kFirst, 3, 7));
  Resume spaces(Api::kChat, true);
  pass(spaces, role_with_ids(kFirst, {1}) + with_ids(Api::kChat, kFirst, "Well.\n", {8}));
  EXPECT_EQ(spaces.ask_ids(body, false).with, "") << "the white space is sampled again";
}

TEST(Resume, SpecialTokensThatAreNotTextAreGoneOnFromToo) {
  const std::string body = R"({"prompt":"p","max_tokens":10})";
  Resume resume(Api::kCompletions, true);
  pass(resume, with_ids(Api::kCompletions, kFirst, "a", {8}, "", std::vector<int32_t>{1}));
  EXPECT_EQ(resume.ask_ids(body, true).with, "") << "all were spoken";
  pass(resume, with_ids(Api::kCompletions, kFirst, "", {2}) + with_ids(Api::kCompletions, kFirst, "b", {9}));
  EXPECT_EQ(resume.ask_ids(body, false).with, R"({"tokens":[1,8,2,9]})");
  EXPECT_FALSE(resume.count_ids("pa<|im_end|>b", "p"));
  EXPECT_EQ(resume.ask_ids(body, true).with, R"({"tokens":[1,8,9]})");
  EXPECT_EQ(resume.next(body, resume.count_ids("pab", "p")).body,
            R"({"prompt":[1,8,2,9],"max_tokens":7,"return_token_ids":true})");
}

TEST(Resume, IdsThatDoNotSayTheTextAreNotUsedAgain) {
  const std::string body = R"({"prompt":"p","max_tokens":10})";
  Resume resume(Api::kCompletions, true);
  pass(resume, with_ids(Api::kCompletions, kFirst, "a", {8}, "", std::vector<int32_t>{1}));
  const auto next = resume.next(body, Resume::Count{.prompt = 1, .sent = 1});
  EXPECT_EQ(next.body, R"({"prompt":"pa","max_tokens":9})");
  pass(resume, with_ids(Api::kCompletions, kSecond, "b", {9}, "", std::vector<int32_t>{1, 8}));
  EXPECT_EQ(resume.ask_ids(body, false).with, "");
}

// Any text, cut anywhere into events and legs: the client reads exactly that text, under one id.
TEST(Resume, PropertyTextSurvivesAnyNumberOfLosses) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    Prng prng(seed);
    const Api api = prng.below(2) ? Api::kChat : Api::kCompletions;
    std::string text;
    for (int i = 0; i < 40; ++i) text += std::string_view("ab \n\"\\ c\td e.f g ")[prng.below(17)];
    const std::string body =
        api == Api::kChat ? R"({"messages":[{"role":"user","content":"q"}]})" : R"({"prompt":"q","max_tokens":1000})";
    Resume resume(api);
    std::string client, question = body;
    size_t at = 0;
    for (int leg = 0; leg < 5; ++leg) {
      const wire::Head head{.id = cat("id-", leg), .model = "m", .created = leg};
      std::string stream = api == Api::kChat ? role(head) : "";
      const bool last = leg == 4;
      for (int events = static_cast<int>(prng.below(6)); at < text.size() && (last || events-- > 0);) {
        const size_t n = std::min<size_t>(1 + prng.below(5), text.size() - at);
        stream += chunk(api, head, text.substr(at, n));
        at += n;
      }
      if (last) stream += chunk(api, head, "", "stop") + std::string(wire::kSseDone);
      const size_t cut = prng.below(20);
      for (size_t from = 0; from < stream.size(); from += cut + 1)
        client += resume.pass(std::string_view(stream).substr(from, cut + 1));
      if (last) break;
      const auto asked = resume.ask(body);
      ASSERT_TRUE(asked) << asked.error().message;
      const auto next = resume.next(body, std::nullopt);
      const auto json = parse_json(next.body);
      // A worker that follows the rules goes on behind the text it was given.
      const Json* messages = json->find("messages");
      const std::string given = api == Api::kChat
                                    ? (messages->items.size() > 1 ? messages->items.back().find("content")->text : "")
                                    : json->find("prompt")->text.substr(1);
      ASSERT_TRUE(text.starts_with(given)) << "seed " << seed;
      at = given.size();
    }
    std::string got;
    for (size_t from = 0, end; (end = client.find("\n\n", from)) != std::string::npos; from = end + 2) {
      const std::string data = client.substr(from + 6, end - from - 6);
      if (data == "[DONE]") continue;
      const auto event = parse_json(data);
      ASSERT_TRUE(event) << data;
      EXPECT_EQ(event->find("id")->text, parse_json(client.substr(6, client.find('\n') - 6))->find("id")->text)
          << "seed " << seed;
      const Json& choice = event->find("choices")->items[0];
      const Json* said = api == Api::kChat ? choice.find_path({"delta", "content"}) : choice.find("text");
      if (said != nullptr) got += said->text;
    }
    ASSERT_EQ(got, text) << "seed " << seed;
    EXPECT_TRUE(resume.complete());
  }
}

}  // namespace
}  // namespace baton::gateway
