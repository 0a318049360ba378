# frozen_string_literal: true

require 'helper'
require 'sidecar_process'
require 'fluent/test/driver/filter'
require 'fluent/plugin/filter_bridge'
require 'fluent/plugin/compressable'

class BridgeFilterTest < Test::Unit::TestCase
  Bridge = Fluent::Plugin::Bridge

  # What an output gets, by tag.
  class Taker < Fluent::Plugin::Output
    attr_reader :taken

    def process(tag, stream)
      (@taken ||= Hash.new { |taken, key| taken[key] = [] })[tag].concat(stream.map { |_, record| record })
    end
  end

  include Fluent::Test::Helpers

  setup do
    Fluent::Test.setup
    @time = Fluent::EventTime.new(1_700_000_000, 123_456_789)
  end

  def driver(address = SidecarProcess.shared.address, **parameters)
    conf = { 'address' => address, **parameters.transform_keys(&:to_s) }
    Fluent::Test::Driver::Filter.new(Fluent::Plugin::BridgeFilter).configure(config_element('filter', 'ad.**', conf))
  end

  # The results, and the driver: its router has what was emitted.
  def filter(tag, stream, subject = driver)
    subject.run { subject.instance.filter_stream(tag, stream) }
    subject.filtered
  end

  def ad(id)
    { 'id' => id, 'url' => "http://site#{id}.example/x" }
  end

  def one(id)
    Fluent::OneEventStream.new(@time, ad(id))
  end

  def field(name, results)
    results.map { |_, record| record[name] }
  end

  def entries(count)
    Array.new(count) { |id| [Fluent::EventTime.new(@time.sec, id), ad(id)] }
  end

  def packed(events)
    Fluent::ArrayEventStream.new(events).to_msgpack_stream
  end

  sub_test_case 'every kind of stream' do
    streams = {
      'array' => ->(events) { Fluent::ArrayEventStream.new(events) },
      'multi' => ->(events) { Fluent::MultiEventStream.new(*events.transpose) },
      'packed' => ->(events) { Fluent::MessagePackEventStream.new(Fluent::ArrayEventStream.new(events).to_msgpack_stream) },
      'packed, counted' => lambda do |events|
        Fluent::MessagePackEventStream.new(Fluent::ArrayEventStream.new(events).to_msgpack_stream, nil, events.size)
      end,
      # Entries come off the wire as a string that says it is UTF-8.
      'packed, said to be text' => lambda do |events|
        Fluent::MessagePackEventStream.new(Fluent::ArrayEventStream.new(events).to_msgpack_stream.force_encoding('UTF-8'))
      end,
      'compressed' => lambda do |events|
        Fluent::CompressedMessagePackEventStream.new(Fluent::ArrayEventStream.new(events).to_compressed_msgpack_stream)
      end
    }
    if Fluent.const_defined?(:MetadataTimeEventStream)
      streams['with metadata'] = lambda do |events|
        Fluent::MetadataTimeEventStream.new(Fluent::ArrayEventStream.new(events.map { |time, record| [[time, {}], record] }))
      end
    end
    data(streams)
    test 'goes through, in order and to the nanosecond' do |stream|
      results = filter('ad.click', stream.call(entries(300)))
      assert_equal((0...300).map { |id| ad(id).merge('site' => "site#{id}.example") }, results.map(&:last))
      assert_equal((0...300).to_a, results.map { |time, _| time.nsec })
    end
  end

  test 'one event, its time a plain number' do
    assert_equal [[5, ad(1).merge('site' => 'site1.example')]], filter('ad.click', Fluent::OneEventStream.new(5, ad(1)))
  end

  test 'what nothing decodes comes back packed' do
    subject = driver
    subject.run do
      result = subject.instance.filter_stream('nobody', Fluent::MessagePackEventStream.new(packed(entries(3))))
      assert_instance_of Fluent::MessagePackEventStream, result
      assert_equal packed(entries(3)), result.to_msgpack_stream.force_encoding(Encoding::BINARY) # as buffers do
      assert_equal 3, result.size
    end
  end

  test 'bytes that are no text' do
    record = { 'kind' => 'stay', 'binary' => "\xFF".b, 'text' => "\xFE", "\xFD" => 1 }
    assert_equal packed([[@time, record]]).b, packed(filter('mixed.in', Fluent::ArrayEventStream.new([[@time, record]]))).b
  end

  test 'an empty stream goes on without the sidecar' do
    assert_empty filter('ad.click', Fluent::ArrayEventStream.new([]), driver('unix:/nowhere'))
  end

  test 'dropped events' do
    assert_empty filter('drop.all', Fluent::ArrayEventStream.new(entries(3)))
  end

  test 'another tag and errors are emitted, the rest goes on' do
    kinds = %w[stay drop fail move stay]
    subject = driver
    events = kinds.each_with_index.map { |kind, id| [@time, { 'id' => id, 'kind' => kind }] }
    results = filter('mixed.in', Fluent::ArrayEventStream.new(events), subject)
    assert_equal [0, 4], field('id', results)
    assert_equal([['mixed.moved', @time, { 'id' => 3, 'kind' => 'move', 'moves' => 1 }]], subject.events(tag: 'mixed.moved'))
    (tag, time, letter), = subject.events(tag: 'error.mixed.in')
    assert_equal ['error.mixed.in', @time, 'mixed.in', { 'id' => 2, 'kind' => 'fail' }], [tag, time, letter['tag'], letter['record']]
    assert_equal 'it is of the wrong kind', letter['error']['message']
  end

  sub_test_case 'what is no event' do
    data(
      'no array' => [{ 'id' => 1 }.to_msgpack, { 'id' => 1 }.to_msgpack],
      'no record' => [[5, 'text'].to_msgpack, [5, 'text'].to_msgpack],
      'garbage at the end' => ["\xC1\xC1".b, "\xC1\xC1".b],
      'half an event' => [[5, { 'id' => 1 }].to_msgpack[0..-2], [5, { 'id' => 1 }].to_msgpack[0..-2]]
    )
    test 'is an error event, and the rest goes on' do |(bad, kept)|
      subject = driver
      results = filter('ad.click', Fluent::MessagePackEventStream.new(packed(entries(5)) + bad), subject)
      assert_equal (0...5).to_a, field('id', results)
      (tag, _, record, error), = subject.error_events
      assert_equal ['ad.click', { 'entries' => kept }], [tag, record]
      assert_kind_of Bridge::Refused, error
      assert_equal 1, subject.error_events.size
    end
  end

  test 'a batch over the largest request goes in pieces, and an event over it is an error event' do
    sidecar = SidecarProcess.new(rpc__max_message_bytes: 4096)
    sidecar.start
    results = filter('ad.click', Fluent::ArrayEventStream.new(entries(1000)), driver(sidecar.address))
    assert_equal (0...1000).to_a, field('id', results)
    subject = driver(sidecar.address)
    large = [@time, { 'id' => 5, 'large' => 'x' * 5000 }]
    results = filter('nobody', Fluent::ArrayEventStream.new([*entries(5), large, *entries(5)]), subject)
    assert_equal [0, 1, 2, 3, 4, 0, 1, 2, 3, 4], field('id', results)
    (tag, time, record, error), = subject.error_events
    assert_equal ['nobody', *large], [tag, time, record]
    assert_match(/takes no event of 50\d\d bytes \(tag nobody\), the most is 40\d\d: raise its rpc.max_message_bytes/, error.message)
  ensure
    sidecar.remove
  end

  test 'several threads at once' do
    subject = driver
    subject.run do
      results = Array.new(8) do |thread|
        Thread.new { Array.new(20) { |round| subject.instance.filter_stream('ad.click', one((thread * 100) + round)) } }
      end
      ids = results.map { |thread| thread.value.map { |stream| stream.map { |_, record| record['id'] } }.flatten }
      assert_equal(Array.new(8) { |thread| Array.new(20) { |round| (thread * 100) + round } }, ids)
    end
  end

  sub_test_case 'a sidecar that is not there' do
    test 'is waited for, a line a step, and raises at last' do
      subject = driver('unix:/nowhere/sidecar.sock', timeout: 2)
      subject.run do
        error = assert_raise(Bridge::Unavailable) { subject.instance.filter_stream('ad.click', one(1)) }
        expected = %r{\Asidecar at unix:/nowhere/sidecar.sock is not there: start it, or check `address` \(tag ad.click, \d+ bytes\)}
        assert_match expected, error.message
        assert_empty error.backtrace
        assert_nil error.cause
      end
      steps = subject.logs.grep(/is not there/)
      assert_equal(%w[0.5 1], steps.map { |line| line[/trying again in (\S+) s/, 1] })
      assert_equal steps, subject.logs.grep(/warn|error/)
    end

    test 'takes what waited for it' do
      sidecar = SidecarProcess.new
      late = Thread.new { sidecar.start }
      subject = driver(sidecar.address)
      assert_equal ['site1.example'], field('site', filter('ad.click', one(1), subject))
      assert_match(/the sidecar answers again, after \d+ failed attempts/, subject.logs.last)
      sidecar.kill
      late = Thread.new { sidecar.start }
      assert_equal ['site2.example'], field('site', filter('ad.click', one(2), driver(sidecar.address)))
    ensure
      late.join
      sidecar.remove
    end

    test 'does not hold up the end' do
      subject = driver('unix:/nowhere/sidecar.sock', timeout: 600)
      subject.run do
        waiting = Thread.new { subject.instance.filter_stream('ad.click', one(1)) }
        waiting.report_on_exception = false
        sleep 0.05 until subject.logs.grep(/trying again/).any?
        subject.instance.stop
        assert_raise(Bridge::Unavailable) { waiting.value }
      end
    end

    test 'fails a unit of work at once' do
      subject = driver('unix:/nowhere/sidecar.sock')
      subject.run do
        assert_raise(Bridge::Unavailable) do
          Bridge::UnitOfWork.run(nil) do
            subject.instance.filter_stream('ad.click', one(1))
          rescue Bridge::SidecarError
            nil # as an @ERROR label does
          end
        end
      end
      assert_empty subject.logs.grep(/trying again/)
    end
  end

  test 'the sidecar says when to come again' do
    subject = driver(timeout: 1)
    subject.run do
      error = assert_raise(Bridge::Unavailable) { subject.instance.filter_stream('later.on', one(1)) }
      assert_equal 2, error.pushback.round
    end
  end

  sub_test_case 'another contract' do
    def serve(service)
      Dir.mktmpdir do |folder|
        server = GRPC::RpcServer.new(pool_size: 1)
        server.add_http2_port("unix:#{folder}/sock", :this_port_is_insecure)
        server.handle(service)
        thread = Thread.new { server.run }
        server.wait_till_running
        yield "unix:#{folder}/sock"
      ensure
        server.stop
        thread.join
      end
    end

    data(
      'older' => [[], /does not know this plugin's contract.*update fluent-bridge to the version of this plugin, \d+\.\d+\.\d+/],
      'newer' => [[:describe], /version \d+\.\d+\.\d+, cannot work together.*update fluent-plugin-bridge to 9.0/]
    )
    test 'says which to update' do |(methods, expected)|
      service = Class.new(::Bridge::Rpc::V1::Sidecar::Service) do
        methods.each { |name| define_method(name) { |*| raise GRPC::FailedPrecondition, 'the sidecar is 9.0: update fluent-plugin-bridge to 9.0' } }
      end
      serve(service) do |address|
        subject = driver(address, timeout: 0.1)
        subject.run do
          error = assert_raise(Bridge::VersionMismatch) { subject.instance.filter_stream('ad.click', one(1)) }
          assert_match expected, error.message
        end
      end
    end
  end

  data(
    'no address' => [{}, /'address' parameter is required/],
    'no socket and no port' => [{ 'address' => 'localhost' }, /address: "localhost" is neither `unix:.*` nor `host:port`/],
    'a relative path' => [{ 'address' => 'unix:sidecar.sock' }, /is neither/],
    'a long path' => [{ 'address' => "unix:/#{'x' * 107}" }, /the path has 108 bytes, a Unix socket's may have 107/],
    'TLS over a Unix socket' => [{ 'address' => 'unix:/x', 'transport' => 'tls' }, /is a Unix socket, which has no TLS/],
    'half a certificate' => [{ 'address' => 'x:1', 'tls_client_cert_path' => '/x' }, /go together: set both, or none/],
    'no such file' => [{ 'address' => 'x:1', 'tls_cert_path' => '/nowhere' }, %r{tls_cert_path: /nowhere cannot be read: No such file}],
    'no time' => [{ 'address' => 'x:1', 'timeout' => '0' }, /timeout is 0.0 s: it must be more than 0/]
  )
  test 'wrong parameters' do |(parameters, expected)|
    subject = Fluent::Test::Driver::Filter.new(Fluent::Plugin::BridgeFilter)
    error = assert_raise(Fluent::ConfigError) { subject.configure(config_element('filter', '**', parameters)) }
    assert_match expected, error.message
  end

  sub_test_case 'in a pipeline' do
    def pipeline(**outputs)
      errors = Object.new
      def errors.handle_emits_error(_tag, _stream, error)
        raise error
      end
      router = Fluent::EventRouter.new(Fluent::NoMatchMatch.new(Logger.new(nil)), errors)
      subject = driver(timeout: 0.5)
      results = Bridge::Results.new(router, 'the pipeline')
      subject.instance.instance_variable_set(:@results, results)
      router.add_rule('**', subject.instance)
      outputs.each do |pattern, output|
        output.configure(config_element('match', pattern.to_s, '@type' => 'taker'))
        router.add_rule(pattern.to_s, output)
      end
      subject.run { yield router, subject }
    end

    def events(*kinds)
      Fluent::ArrayEventStream.new(kinds.map { |kind| [@time, { 'kind' => kind }] })
    end

    test 'results under another tag do not come into the filter again' do
      taker = Taker.new
      pipeline('**': taker) do |router, subject|
        router.emit_stream('mixed.in', events('stay', 'move', 'stay'))
        assert_equal 3, subject.instance.statistics['filter']['emit_records'] # what was moved passed it, too
      end
      assert_equal({ 'mixed.moved' => [{ 'kind' => 'move', 'moves' => 1 }], 'mixed.in' => [{ 'kind' => 'stay' }] * 2 }, taker.taken)
    end

    test 'a result that no <match> takes comes again' do
      taker = Taker.new
      pipeline('mixed.in': taker) do |router, _|
        error = assert_raise(Bridge::NoDestination) { router.emit_stream('mixed.in', events('stay', 'fail')) }
        assert_match(/1 events the tag error.mixed.in, and no <match> of the pipeline takes them: add a <match error\.\*\*>/, error.message)
      end
      assert_nil taker.taken
    end
  end
end
