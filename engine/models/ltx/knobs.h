// LTX-Video's own knobs, named as diffusers 0.42.1 pipelines/ltx names its arguments. Values; no
// torch.
#pragma once

#include <optional>
#include <vector>

#include "engine/describe/request.h"

namespace kino::engine {

struct LtxKnobs {
  std::optional<double> frame_rate, guidance_rescale, decode_timestep, decode_noise_scale;
  std::optional<int> max_sequence_length;
  std::vector<double> timesteps, sigmas;
  std::optional<double> image_cond_noise_scale, denoise_strength;
  std::optional<double> adain_factor, tone_map_compression_ratio;
  std::optional<int> passes, second_pass_steps;
  std::vector<double> second_pass_timesteps;
  std::optional<double> second_pass_strength;
  std::optional<int> temporal_tile_size, temporal_overlap;
  std::optional<double> temporal_overlap_cond_strength, skip_steps_sigma_threshold;
  std::optional<int> decode_horizontal_tiles, decode_vertical_tiles, decode_overlap;
};

inline constexpr unsigned kLtxDenoising = ~OnlyTask(Task::kUpscale);
// Those of LTXI2VLongMultiPromptPipeline.
inline constexpr unsigned kLongTasks = OnlyTask(Task::kTextToVideo) | OnlyTask(Task::kImageToVideo);

inline constexpr KnobField<LtxKnobs> kLtxKnobs[] = {
    Knob<&LtxKnobs::frame_rate>(
        "frame_rate", 0.1, 1000, 25.0,
        "Frames per second that the model is conditioned on (not the output's).", kLtxDenoising),
    Knob<&LtxKnobs::guidance_rescale>("guidance_rescale", 0, 1, 0.0,
                                      "Guidance rescale (arXiv 2305.08891, section 3.4); 0 is off.",
                                      kLtxDenoising),
    Knob<&LtxKnobs::decode_timestep>("decode_timestep", 0, 1, 0.0,
                                     "Timestep at which a timestep-conditioned VAE decodes."),
    Knob<&LtxKnobs::decode_noise_scale>(
        "decode_noise_scale", 0, 1, std::nullopt,
        "Noise mixed into the latents before such a decode. Default: decode_timestep."),
    Knob<&LtxKnobs::max_sequence_length>(
        "max_sequence_length", 1, 512, std::nullopt,
        "Text tokens. Default: 128; 256 where LTXConditionPipeline runs.", kLtxDenoising),
    Knob<&LtxKnobs::timesteps>(
        "timesteps", 0, 1000, std::nullopt,
        "A schedule of your own, highest first; their count is the number of steps.",
        kLtxDenoising),
    Knob<&LtxKnobs::sigmas>("sigmas", 0, 1, std::nullopt, "The same, as sigmas.", kLtxDenoising),
    Knob<&LtxKnobs::image_cond_noise_scale>(
        "image_cond_noise_scale", 0, 1, std::nullopt,
        "Noise added before each step to what conditions of strength 1 hold, times the square of "
        "the noise level. Default: 0.15 where LTXConditionPipeline runs.",
        OnlyTask(Task::kImageToVideo) | OnlyTask(Task::kVideoToVideo)),
    Knob<&LtxKnobs::denoise_strength>(
        "denoise_strength", 0, 1, std::nullopt,
        "Share of the steps that run: below 1 the first of the schedule are left out. Default: 1 "
        "where LTXConditionPipeline runs.",
        kLtxDenoising),
    Knob<&LtxKnobs::adain_factor>(
        "adain_factor", 0, 10, std::nullopt,
        "How much of the small video's statistics the upsampled latents get, default 0; or of the "
        "first window's, each later one of a long video, default 0.25."),
    Knob<&LtxKnobs::tone_map_compression_ratio>(
        "tone_map_compression_ratio", 0, 1, std::nullopt,
        "Compresses the range of the upsampled latents. Default: 0."),
    Knob<&LtxKnobs::passes>(
        "passes", 1, 2, std::nullopt,
        "2: a first pass at half the height and width, the latent upsampler, and a second pass at "
        "full size. Default: 2 where a knob of the second pass is given, else 1.",
        kLtxDenoising),
    Knob<&LtxKnobs::second_pass_timesteps>(
        "second_pass_timesteps", 0, 1000, std::nullopt,
        "The second pass's schedule, as timesteps is the first one's.", kLtxDenoising),
    Knob<&LtxKnobs::second_pass_steps>(
        "second_pass_steps", 1, 1000, std::nullopt,
        "Steps of the second pass's schedule. Default: as many as second_pass_timesteps has, "
        "else 10.",
        kLtxDenoising),
    Knob<&LtxKnobs::second_pass_strength>(
        "second_pass_strength", 0, 1, std::nullopt,
        "Share of the second pass's steps that run, below 1. Default: 0.4.", kLtxDenoising),
    Knob<&LtxKnobs::temporal_tile_size>(
        "temporal_tile_size", 1, 1 << 17, std::nullopt,
        "Makes the video in windows of so many pixel frames, as LTXI2VLongMultiPromptPipeline "
        "does: prompt may hold one for each window, between bars (|). Default: 80 where the "
        "model's folder names that class, else the video is made in one.",
        kLongTasks),
    Knob<&LtxKnobs::temporal_overlap>(
        "temporal_overlap", 0, 1 << 17, std::nullopt,
        "Pixel frames that two windows share. Default: 24. As in diffusers, two latent frames (16) "
        "make the video longer than asked, and less than one shorter.",
        kLongTasks),
    Knob<&LtxKnobs::temporal_overlap_cond_strength>(
        "temporal_overlap_cond_strength", 0, 1, std::nullopt,
        "How strongly a window holds on to the end of the one before. Default: 0.5.", kLongTasks),
    Knob<&LtxKnobs::skip_steps_sigma_threshold>(
        "skip_steps_sigma_threshold", 0, 1, std::nullopt,
        "Leaves steps out that begin with more noise than this; 0 leaves none out. Default: 1.",
        kLongTasks),
    Knob<&LtxKnobs::decode_horizontal_tiles>(
        "decode_horizontal_tiles", 1, 64, std::nullopt,
        "Tiles of a long video's decode side by side. Default: 4.", kLongTasks),
    Knob<&LtxKnobs::decode_vertical_tiles>("decode_vertical_tiles", 1, 64, std::nullopt,
                                           "The same, one below the other. Default: 4.",
                                           kLongTasks),
    Knob<&LtxKnobs::decode_overlap>("decode_overlap", 0, 64, std::nullopt,
                                    "Latents that two such tiles share. Default: 3.", kLongTasks),
};

}  // namespace kino::engine
