# frozen_string_literal: true

require 'helper'
require 'sidecar_process'
require 'fluent/test/driver/output'
require 'fluent/plugin/out_bridge'

class BridgeOutputTest < Test::Unit::TestCase
  Bridge = Fluent::Plugin::Bridge

  include Fluent::Test::Helpers

  setup do
    Fluent::Test.setup
    @time = Fluent::EventTime.new(1_700_000_000, 123_456_789)
  end

  def driver(address = SidecarProcess.shared.address, buffer: {})
    buffer = { '@type' => 'memory', 'flush_mode' => 'immediate', **buffer }
    Fluent::Test::Driver::Output.new(Fluent::Plugin::BridgeOutput).configure(
      config_element('match', '**', { '@label' => '@OUT', 'address' => address }, [config_element('buffer', 'tag', buffer)])
    )
  end

  def ads(count)
    Array.new(count) { |id| [Fluent::EventTime.new(@time.sec, id), { 'id' => id, 'url' => "http://site#{id}.example/x" }] }
  end

  compressions = { 'not' => {}, 'gzip' => { 'compress' => 'gzip' } }
  compressions['zstd'] = { 'compress' => 'zstd' } if Gem.loaded_specs.key?('zstd-ruby')
  data(compressions)
  test 'results are emitted, in order and to the nanosecond, from a buffer compressed' do |compress|
    subject = driver(buffer: compress)
    subject.run(default_tag: 'ad.click', expect_records: 300, timeout: 20) { subject.feed(ads(300)) }
    expected = ads(300).map { |time, ad| ['ad.click', time, ad.merge('site' => "site#{ad['id']}.example")] }
    assert_equal expected, subject.events
    assert_equal((0...300).to_a, subject.events.map { |_, time, _| time.nsec })
  end

  test 'other tags and errors' do
    subject = driver
    subject.run(default_tag: 'mixed.in', expect_records: 3, timeout: 20) do
      subject.feed(%w[stay move fail drop].map { |kind| [@time, { 'kind' => kind }] })
    end
    assert_equal %w[error.mixed.in mixed.in mixed.moved], subject.events.map(&:first).sort
  end

  test 'several flush threads' do
    subject = driver(buffer: { 'flush_thread_count' => 4, 'chunk_limit_records' => 50 })
    subject.run(default_tag: 'ad.click', expect_records: 2000, timeout: 30) { ads(2000).each_slice(50) { |some| subject.feed(some) } }
    assert_equal((0...2000).to_a, subject.events.map { |_, _, ad| ad['id'] }.sort)
  end

  class Collecting < Fluent::Plugin::Output
    Fluent::Plugin.register_output('collecting', self)

    attr_reader :ids

    def configure(conf)
      super
      @ids = Queue.new
    end

    def write(chunk)
      chunk.msgpack_each { |_, ad| @ids << ad['id'] }
    end
  end

  TAGS = %w[ad.one ad.two].freeze

  TWO_OUTPUTS = TAGS.map { |tag| <<~CONF }.join
    <match #{tag}>
      @type bridge
      @label @OUT
      address %<address>s
      <buffer tag>
        @type memory
        flush_mode immediate
        flush_thread_count 2
        flush_thread_burst_interval 0.001
      </buffer>
    </match>
  CONF

  # The results of 400 ads do not fit into one of its chunks. Only writing to files lets other threads in.
  ONE_BUFFER = <<~CONF
    <label @OUT>
      <match **>
        @type collecting
        <buffer>
          @type file
          path %<path>s
          chunk_limit_size 24k
          flush_interval 0
          flush_thread_interval 0.01
          flush_thread_burst_interval 0.001
        </buffer>
      </match>
    </label>
  CONF

  test 'several flush threads of two outputs emit into one buffer' do
    path = Dir.mktmpdir
    conf = format(TWO_OUTPUTS + ONE_BUFFER, address: SidecarProcess.shared.address, path: path)
    root = Fluent::Engine.root_agent
    root.configure(Fluent::Config.parse(conf, '(test)', '', true))
    root.start
    ads(20_000).each_slice(400).zip(TAGS.cycle) do |some, tag|
      root.event_router.emit_stream(tag, Fluent::ArrayEventStream.new(some))
    end
    ids = root.labels['@OUT'].outputs[0].ids
    deadline = Fluent::Clock.now + 20
    sleep 0.1 until ids.size >= 20_000 || Fluent::Clock.now > deadline
    missing = (0...20_000).to_a - Array.new(ids.size) { ids.pop }
    assert_equal 0, missing.size, "the first: #{missing.first(20)}"
  ensure
    root&.shutdown
    FileUtils.rm_rf(path)
  end

  test 'a chunk stays while the sidecar is away, with one line a step' do
    sidecar = SidecarProcess.new
    subject = driver(sidecar.address, buffer: { 'retry_wait' => 0.2, 'retry_max_interval' => 1 })
    subject.instance.retry_for_error_chunk = true
    late = nil
    subject.run(default_tag: 'ad.click', expect_records: 10, timeout: 60) do
      subject.feed(ads(10))
      sleep 0.05 until subject.logs.grep(/is not there/).size > 2
      late = Thread.new { sidecar.start }
    end
    assert_equal((0...10).to_a, subject.events.map { |_, _, ad| ad['id'] })
    steps = subject.logs.grep(/sidecar.sock is not there: start it, or check `address` \(tag ad.click/)
    assert_equal [steps, []], [subject.logs.grep(/failed to flush/), subject.logs.grep(/\.rb:\d+/)]
  ensure
    late&.join
    sidecar.remove
  end

  test 'a chunk that holds no events is given up, not tried for ever' do
    subject = driver
    subject.run do
      chunk = subject.instance.buffer.generate_chunk(subject.instance.metadata('ad.click', @time, {})).staged!
      chunk.append(['garbage'])
      error = assert_raise(Fluent::UnrecoverableError) { subject.instance.write(chunk) }
      assert_match(/finds no events in the batch \(tag ad.click, 7 bytes\)/, error.message)
    end
  end

  data(
    'no buffer' => [{ '@label' => '@OUT' }, [], /there is no <buffer>: add one, or .* use <filter>/],
    'no tag' => [{ '@label' => '@OUT' }, ['[]'], /<buffer> has no `tag`/],
    'other keys' => [{ '@label' => '@OUT' }, ['country'], /<buffer country> has no `tag`/],
    'no label' => [{}, ['tag'], /results would come back to this <match>: set @label to another label/]
  )
  test 'wrong configurations' do |(parameters, keys, expected)|
    buffers = keys.map { |key| config_element('buffer', key, '@type' => 'memory') }
    subject = Fluent::Test::Driver::Output.new(Fluent::Plugin::BridgeOutput)
    error = assert_raise(Fluent::ConfigError) do
      subject.configure(config_element('match', '**', { 'address' => 'x:1', **parameters }, buffers))
    end
    assert_match expected, error.message
  end
end
