#pragma once
// Named maxima of text/: what a request or a model file can make us do. Overload answer: kResourceExhausted that names the limit.
#include <cstddef>
#include <cstdint>

namespace baton::text {

// Tokenizer files. The largest real one (200k tokens, 450k merges) is 30 MB, and 2.5 M JSON values.
constexpr size_t kTokenizerJsonBytesMax = size_t{128} << 20;
constexpr int32_t kVocabMax = 4 << 20;           // ids below this; a lying id must not allocate gigabytes
constexpr size_t kTokenBytesMax = 64 << 10;      // one vocabulary entry
constexpr size_t kPipelineStagesMax = 32;        // normalizers or pre-tokenizers in a Sequence
constexpr size_t kRegexBytesMax = 64 << 10;      // one pattern of a tokenizer.json
constexpr uint32_t kRegexStepsMax = 50'000'000;  // PCRE2 match limit for one match call
constexpr size_t kNormalizedGrowthMax = 20;      // bytes out per byte in, over the largest real expansion (NFKD of U+FDFA: 11x)

// One encode() call: 16 M tokens of context at 4 bytes each is past every model.
constexpr size_t kEncodeBytesMax = size_t{64} << 20;

// Word cache of a tokenizer: 16384 slots of 64 bytes = 1 MiB, which holds the working set of one language.
constexpr size_t kWordCacheSlots = 16384;

// Chat templates. The largest real template is 18 KB and takes 2,000 steps for a message.
constexpr size_t kTemplateBytesMax = 1 << 20;
constexpr size_t kTemplateNodesMax = 200'000;
constexpr int kTemplateDepthMax = 100;                // nesting of statements and expressions in the source
constexpr int kRenderDepthMax = 600;                  // nested evaluations (macro calls included), 1 KB of stack each
constexpr int kValueDepthMax = 100;                   // nesting of lists and objects, in variables and in what a template builds
constexpr int64_t kRenderStepsMax = 5'000'000;        // half a second; 50,000 messages of a real template
constexpr size_t kRenderBytesMax = size_t{64} << 20;  // the output; also the written-out size of any one value
constexpr size_t kRenderWorkMax = size_t{512} << 20;  // bytes that all operations of a render read or build, together
constexpr int64_t kRangeMax = 100'000;                // range(n), as Jinja's sandbox
constexpr int64_t kJsonIndentMax = 64;                // tojson(indent=n)

// Stop strings: vLLM has no bound; ours keeps the search and the held-back tail small.
constexpr size_t kStopStringBytesMax = 4096;

}  // namespace baton::text
