// What a GPU computes is what the CPU computes: every model with its loss and gradients, attention in one kernel, EWC, and
// a step that is not finite. Skipped where libtorch finds none.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "graft/models/device.h"
#include "graft/nn/attention.h"
#include "graft/nn/causal_attention.h"
#include "graft/retain/ewc.h"
#include "graft/train/adamw.h"
#include "graft/train/phase.h"
#include "tests/cli/program.h"
#include "tests/fixtures.h"
#include "tests/models/cases.h"
#include "tests/train/streams.h"

namespace graft::train {
namespace {

using namespace tests;

/// What the tests' inputs bring, which know of the CPU only, goes to the model's device.
struct OnDevice final : Through {
  OnDevice(const Stream& stream, torch::Device device) : Through(stream), device(device) {}
  std::map<std::string, Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    auto all = Through::enter(examples, epoch);
    for (auto& [chain, x] : all) {
      if (x.hidden.values.defined()) x.hidden.values = models::placed(x.hidden.values, device);
      for (auto& [slot, rows] : x.kept) rows.values = models::placed(rows.values, device);
    }
    return all;
  }
  torch::Device device;
};

class Gpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!models::compute_on("auto").is_cuda()) GTEST_SKIP() << "no GPU is found";
  }
  void TearDown() override { models::compute_on("cpu"); }
};

double difference(const Tensor& a, const Tensor& b) {
  return (a.cpu() - b.cpu()).abs().max().item<double>() / std::max(1e-6, b.abs().max().item<double>());
}

class GpuModels : public Gpu, public testing::WithParamInterface<std::string> {};

TEST_P(GpuModels, LossAndGradientsAreThoseOfTheCpu) {
  const auto learn = [&](bool gpu) {
    Case c(GetParam(), 1, 0.0);
    if (gpu) models::put_on_device(*c.model);
    c.model->unfreeze_only(c.model->all_groups());
    c.model->eval();
    const features::Feed feed(*c.model, *c.inputs);
    const auto plain = c.stream(feed);
    const OnDevice stream(plain, c.model->device());
    std::vector<int64_t> examples{0, 1, 2, 3, 4, 5};
    const auto loss = stream.loss_sum(forward_behind(*c.model, stream.enter(examples, 0), {}), examples, 0);
    loss.backward();
    std::map<std::string, Tensor> all{{"loss", loss.detach().cpu()}};
    for (const auto& item : c.model->parameters_by_key())
      if (item.value().grad().defined()) all[item.key()] = item.value().grad().cpu();
    return all;
  };
  const auto here = learn(false), there = learn(true);
  ASSERT_EQ(here.size(), there.size());
  double largest = 0;
  for (const auto& [key, value] : here) largest = std::max(largest, value.abs().max().item<double>());
  for (const auto& [key, value] : here)
    EXPECT_LE((there.at(key) - value).abs().max().item<double>(), 1e-4 * largest) << key;
}

INSTANTIATE_TEST_SUITE_P(All, GpuModels, testing::ValuesIn(case_names()),
                         [](const auto& info) { return test_name(info.param); });

TEST_F(Gpu, AttentionInOneKernelIsThatByRuns) {
  torch::manual_seed(1);
  const std::vector<int64_t> lengths{3, 7, 7, 12, 1}, queries{3, 2, 7, 0, 1};
  const auto N = 30, M = 13, H = 4, D = 16;
  const auto q = torch::randn({M, H * D}), k = torch::randn({N, H * D}), v = torch::randn({N, H * D});
  const auto there = [](const Tensor& x) { return x.cuda(); };
  EXPECT_LE(difference(nn::attention(there(q), there(k), there(v), queries, lengths, H, 0),
                       nn::attention(q, k, v, queries, lengths, H, 0)),
            1e-5);
  const auto half = [&](const Tensor& x) { return there(x).to(torch::kBFloat16); };
  EXPECT_LE(difference(nn::attention(half(q), half(k), half(v), queries, lengths, H, 0).to(torch::kFloat32),
                       nn::attention(q, k, v, queries, lengths, H, 0)),
            2e-2);
  for (const int64_t window : {0, 4}) {
    const nn::CausalOptions o{.num_heads = H, .num_key_value_heads = 2, .window = window};
    const auto all = torch::randn({N, H * D}), keys = torch::randn({N, 2 * D}), values = torch::randn({N, 2 * D});
    const nn::CausalRows rows{lengths, lengths};
    const auto expected = nn::causal_attention(all, keys, values, rows, o);
    EXPECT_LE(difference(nn::causal_attention(there(all), there(keys), there(values), rows, o), expected), 1e-5);
    EXPECT_LE(
        difference(nn::causal_attention(half(all), half(keys), half(values), rows, o).to(torch::kFloat32), expected),
        2e-2);
  }
}

TEST_F(Gpu, EwcPullsAsOnTheCpu) {
  const auto pull = [](bool gpu) {
    Case c("bert_classification", 1, 0.0);
    std::map<std::string, Tensor> fisher;
    torch::manual_seed(3);
    for (const auto& item : c.model->parameters_by_key()) fisher[item.key()] = torch::rand(item.value().sizes());
    const auto anchors = retain::anchors_at(*c.model, fisher);
    c.model->unfreeze_only(c.model->all_groups());
    {
      const torch::NoGradGuard no_grad;
      for (auto& item : c.model->parameters_by_key()) item.value() += 0.1 * torch::randn(item.value().sizes());
    }
    if (gpu) models::put_on_device(*c.model);
    retain::Ewc ewc(*c.model, anchors, 7);
    const double value =
        ewc.add_gradients({.model = *c.model, .epoch = 0, .step = 0, .steps = 1, .examples = 1, .seed = 1});
    std::vector<Tensor> gradients{torch::tensor(value)};
    for (const auto& item : c.model->parameters_by_key()) gradients.push_back(item.value().grad().cpu());
    return gradients;
  };
  const auto here = pull(false), there = pull(true);
  for (size_t i = 0; i < here.size(); ++i) EXPECT_LE(difference(there[i], here[i]), 1e-5);
}

TEST_F(Gpu, ASmallHeadMayComputeOnTheCpuAndComesBack) {
  Case c("bert_classification", 1, 0.0), tied("bert_masked_lm", 1, 0.0);
  models::put_on_device(*c.model);
  models::put_on_device(*tied.model);
  {
    const models::HeadOnCpu here(*c.model), stays(*tied.model);
    EXPECT_TRUE(models::head_device(*c.model).is_cpu());
    EXPECT_TRUE(c.model->device().is_cuda());
    EXPECT_TRUE(models::head_device(*tied.model).is_cuda()) << "it uses the embeddings";
  }
  EXPECT_TRUE(models::head_device(*c.model).is_cuda());
}

TEST_F(Gpu, ARunOfAllStagesIsResumedToTheSameBytes) {
  const Scratch scratch;
  const auto arguments = [&](const std::string& out) {
    auto all = short_run(scratch, out);
    all.insert(all.end(), {"--set", "train.device=cuda"});
    return all;
  };
  const auto unbroken = graft(arguments("unbroken"));
  ASSERT_EQ(unbroken.code, 0) << unbroken.err;
  Started killed(arguments("killed"));
  const auto journal = scratch / "killed/journal.jsonl";
  const auto after_head = [&] {
    return fs::exists(journal) && read_text(journal).find("phase_end") != std::string::npos;
  };
  while (!killed.ended() && !after_head()) usleep(10000);
  killed.send(SIGKILL);
  killed.finish();
  const auto resumed = graft({"run", "--resume", (scratch / "killed").string()});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(run_fingerprint(scratch / "killed"), run_fingerprint(scratch / "unbroken"));
}

TEST_F(Gpu, AStepThatIsToldToSkipChangesNothing) {
  auto parameter = torch::ones({3}, torch::device(torch::kCUDA)).requires_grad_();
  AdamW adamw({});
  adamw.add("p", parameter, 0.1, 0);
  parameter.mutable_grad() = torch::full({3}, std::numeric_limits<float>::quiet_NaN(), torch::device(torch::kCUDA));
  adamw.step(1, 0, torch::ones({}, torch::device(torch::kCUDA)));
  EXPECT_TRUE(parameter.detach().cpu().equal(torch::ones({3})));
  parameter.mutable_grad() = torch::ones({3}, torch::device(torch::kCUDA));
  adamw.step(1, 0, torch::zeros({}, torch::device(torch::kCUDA)));
  EXPECT_NEAR(parameter[0].item<float>(), 0.9, 1e-5);
}

/// A loss that is not a number from one step on.
struct PoisonedOnGpu final : Through {
  PoisonedOnGpu(const Stream& stream, int64_t steps) : Through(stream), left(steps) {}
  Tensor loss_sum(const Outputs& outputs, const std::vector<int64_t>& examples, uint64_t epoch) const override {
    const auto loss = Through::loss_sum(outputs, examples, epoch);
    return epoch != kEvaluation && left-- <= 0 ? loss * std::numeric_limits<float>::quiet_NaN() : loss;
  }
  mutable int64_t left;
};

TEST_F(Gpu, ALossThatIsNotANumberLeavesTheWeightsOfTheStepBefore) {
  Case c("bert_classification", 1, 0.0);
  models::put_on_device(*c.model);
  const features::Feed feed(*c.model, *c.inputs), validation_feed(*c.model, *c.validation_inputs);
  const auto plain = c.stream(feed);
  const auto validation = c.validation(validation_feed);
  const PoisonedOnGpu stream(plain, 1);
  PhasePlan plan{.stage = "finetune",
                 .name = "head",
                 .trainable = {"head"},
                 .learning_rates = {{"head", 1e-2}},
                 .epochs = 1,
                 .metric = "accuracy"};
  TrainOptions options;
  options.batch_size = 4;
  Phase phase(*c.model, plan, options, stream, validation, 1);
  std::vector<Tensor> after_first;
  std::string message;
  try {
    phase.run({.step_done = [&](int64_t, int64_t step, int64_t, double, int64_t) {
      if (step == 1)
        for (const auto& item : c.model->head->named_parameters()) after_first.push_back(item.value().detach().cpu());
    }});
  } catch (const std::exception& e) {
    message = e.what();
  }
  EXPECT_TRUE(message.starts_with("head, epoch 1, step 2: the loss is nan.")) << message;
  size_t i = 0;
  for (const auto& item : c.model->head->named_parameters())
    EXPECT_TRUE(item.value().detach().cpu().equal(after_first[i++])) << item.key();
}

}  // namespace

TEST(Device, WhereThereIsNoGpuAutoIsTheCpuAndCudaIsRefusedWithWhatIsMissing) {
  if (models::compute_on("auto").is_cuda()) {
    models::compute_on("cpu");
    GTEST_SKIP() << "there is a GPU";
  }
  EXPECT_TRUE(models::compute_device().is_cpu());
  const auto message = message_of([] { models::compute_on("cuda"); });
  EXPECT_TRUE(message.starts_with("train.device is cuda, but ")) << message;
  EXPECT_TRUE(message.ends_with(" Or set train.device to cpu.")) << message;
}

}  // namespace graft::train
