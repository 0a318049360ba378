# frozen_string_literal: true

require 'test-unit'
require 'fluent/test'
require 'fluent/test/driver/output'
require 'fluent/test/helpers'
require 'fluent/plugin/out_bridge_kafka'
require_relative '../kafka'

class BridgeKafkaOutputTest < Test::Unit::TestCase
  include Fluent::Test::Helpers

  Bridge = Fluent::Plugin::Bridge
  TIME = Fluent::EventTime.new(1_700_000_000, 123_456_789)
  SINGLE = "<format>\n@type single_value\n</format>"

  setup do
    Fluent::Test.setup
    @producers = []
  end

  teardown { @producers.each(&:close) }

  def driver(conf, brokers: Kafka.brokers)
    Fluent::Test::Driver::Output.new(Fluent::Plugin::BridgeKafkaOutput).configure("brokers #{brokers}\n#{conf}")
  end

  # What has a buffer gets every record through it, and what has none in one stream.
  def deliver(conf, records, tag: 'ad.click', packed: true, **)
    driver = driver(conf, **)
    events = Fluent::MultiEventStream.new(Array.new(records.size, TIME), records)
    events = Fluent::MessagePackEventStream.new(events.to_msgpack_stream) if packed
    driver.run(default_tag: tag) do
      driver.feed(tag, events)
      buffer = driver.instance.buffer
      sleep 0.05 until buffer.nil? || [buffer.stage, buffer.queue, buffer.dequeued].all?(&:empty?)
    end
    driver
  end

  def errors(driver)
    driver.error_events.map { |tag, _, record, error| [tag, record, error.message] }
  end

  def transactional
    producer = Bridge::Producer.new(
      { 'bootstrap.servers' => Kafka.brokers, 'transactional.id' => SecureRandom.hex }, log: Fluent::Test::TestLogger.new
    )
    @producers << producer
    producer.init_transactions
    producer.begin_transaction
    producer
  end

  # As Fluentd makes one of <label @ERROR>.
  def with_error_label
    label = Fluent::Engine.root_agent.add_label('@ERROR')
    label.configure(config_element('label', '@ERROR', {}, [config_element('match', '**', { '@type' => 'null' })]))
    label
  end

  # Whether it says at its start that the label is missing.
  def misses_error_label?(within: nil)
    driver = driver('topic x')
    driver.instance.instance_variable_set(:@router, within.event_router) if within
    driver.run
    driver.logs.any? { |line| line.include?('there is no <label @ERROR>') }
  end

  test 'a missing @ERROR label is said, and only a missing one' do
    assert_true(misses_error_label?)
    label = with_error_label
    assert_false(misses_error_label?)
    assert_false(misses_error_label?(within: label))
  end

  data('without a buffer' => '', 'buffered' => "<buffer tag>\nflush_mode immediate\n</buffer>")
  test 'records are delivered as JSON without a newline' do |buffer|
    topic = Kafka.topic
    deliver("topic #{topic}\n#{buffer}", [{ 'a' => 1 }, { 'b' => 'ü' }])
    assert_equal(['{"a":1}', '{"b":"ü"}'], Kafka.read(topic).map { |record| record.payload.dup.force_encoding('UTF-8') })
  end

  shapes = {
    'payloads alone' => ['', [{ 'message' => 'a' }, { 'message' => 'b' * 300 }, { 'message' => 'c' * 70_000 }, { 'message' => '' }]],
    'with keys' => ["message_key_key key\n",
                    [{ 'message' => 'a', 'key' => 'k' }, { 'key' => 'l', 'message' => 'b' }, { 'message' => 'c' }]],
    'with other fields' => ["message_key_key key\n", [{ 'message' => 'a', 'key' => 'k' }, { 'message' => 'b', 'n' => 1, 'key' => 'l' }]],
    'tombstones' => ["message_key_key key\n", [{ 'message' => nil, 'key' => 'k' }, { 'message' => nil }]],
    'no text' => ['', [{ 'message' => 'a' }, { 'message' => 12 }, { 'message' => 'c' }]],
    'not UTF-8' => ['', [{ 'message' => "\xff\x00".b }]]
  }
  data(shapes.flat_map { |name, shape| [["#{name}, packed", [*shape, true]], ["#{name}, not packed", [*shape, false]]] }.to_h)
  test 'single_value sends the text as it is' do |(conf, records, packed)|
    topic = Kafka.topic
    deliver("topic #{topic}\n#{conf}#{SINGLE}", records, packed: packed)
    expected = records.map { |record| [record['message']&.to_s&.b, record['key']] }
    assert_equal(expected, Kafka.read(topic).map { |record| [record.payload&.b, record.key] })
  end

  test 'every form of time that Fluentd and others write is gone over' do
    topic = Kafka.topic
    times = [[0xd7, 0, 1, 2].pack('CCNN'), [0xc7, 8, 0, 1, 2].pack('CCCNN'), [0xce, 1].pack('CN'), [0xcf, 1].pack('CQ>'),
             [0xcb, 1.5].pack('CG')]
    packed = times.map.with_index { |time, index| [0x92].pack('C') << time << { 'message' => index.to_s }.to_msgpack }.join
    driver = driver("topic #{topic}\n#{SINGLE}")
    driver.run { driver.feed('t', Fluent::MessagePackEventStream.new(packed)) }
    assert_equal times.each_index.map(&:to_s), Kafka.read(topic).map(&:payload)
  end

  test 'topic, key, partition, headers and time come from the record' do
    topic = Kafka.topic(partitions: 4)
    other = Kafka.topic(partitions: 4)
    deliver(<<~CONF, [{ 'to' => other, 'k' => 'key', 'p' => 3, 'page' => { 'site' => 'x' }, 'v' => 1 }, { 'v' => 2 }])
      topic #{topic}
      topic_key to
      message_key_key k
      partition_key p
      default_partition 2
      default_message_key none
      exclude_topic_key true
      exclude_message_key true
      exclude_partition true
      headers {"a":"b"}
      headers_from_record {"site":"$.page.site"}
      use_event_time true
    CONF
    record = Kafka.read(other).first
    assert_equal ['{"page":{"site":"x"},"v":1}', 'key', 3, { 'a' => 'b', 'site' => 'x' }],
                 [record.payload, record.key, record.partition, record.headers]
    assert_equal 1_700_000_000_123, (record.timestamp.to_f * 1000).round
    record = Kafka.read(topic).first
    assert_equal ['{"v":2}', 'none', 2, { 'a' => 'b' }], [record.payload, record.key, record.partition, record.headers]
  end

  test 'a field decides the partition as a message key would' do
    topic = Kafka.topic(partitions: 8)
    records = Array.new(20) { |index| { 'key' => "k#{index}" } }
    deliver("topic #{topic}\nmessage_key_key key", records)
    deliver("topic #{topic}\npartition_key_key key", records)
    by_key, by_field = Kafka.read(topic).partition(&:key)
    partition = ->(record) { [record.payload, record.partition] }
    assert_equal by_key.map(&partition).sort, by_field.map(&partition).sort
  end

  topics = { 'the tag' => ['${tag}', ''], 'a part of the tag' => ['x-${tag[1]}', ''],
             'the tag, buffered' => ['${tag}', "<buffer tag>\nflush_mode immediate\n</buffer>"],
             'a field, buffered' => ['${site}', "<buffer site>\nflush_mode immediate\n</buffer>"] }
  data(topics)
  test 'the topic has placeholders' do |(pattern, buffer)|
    topic = Kafka.topic
    pattern = "#{topic[0, 4]}#{pattern.delete_prefix('x-')}" if pattern.start_with?('x-')
    tag = pattern.include?('[1]') ? "a.#{topic[4..]}.b" : topic
    deliver("topic #{pattern}\n#{buffer}", [{ 'site' => topic }], tag: tag)
    assert_equal 1, Kafka.read(topic).size
  end

  wrong = {
    'no topic' => ['', /topic or topic_key/], 'a key without a buffer' => ['topic ${site}', /topic_key/],
    'a tag without the chunk key' => ["topic ${tag}\n<buffer []>\n</buffer>", /chunk keys tag/],
    'a field without the chunk key' => ["topic ${site}\n<buffer tag>\n</buffer>", /chunk keys site/],
    'time without the chunk key' => ["topic a-%Y\n<buffer tag>\n</buffer>", /chunk keys time/]
  }
  data(wrong)
  test 'what cannot work is refused at start' do |(conf, message)|
    assert_match message, assert_raise(Fluent::ConfigError) { driver(conf, brokers: 'b:9092') }.message
  end

  test 'a plugin tells whether it has a buffer' do
    assert_false driver('topic t', brokers: 'b:9092').instance.buffered?
    assert_true driver("topic t\n<buffer>\n</buffer>", brokers: 'b:9092').instance.buffered?
  end

  large = { 'message' => 'x' * 1_500_000 }
  refused = {
    'too large for the client' => [{}, '', large, /too large/],
    'too large for the topic' => [{ max_message_bytes: 3000 }, '', { 'message' => 'x' * 5000 }, /too large/],
    'no key in a compacted topic' => [{ cleanup_policy: 'compact' }, "message_key_key key\n", { 'message' => 'b' }, /compacted/],
    'no payload' => [{}, '', { 'other' => 'b' }, /no field message/],
    'no such topic' => [{}, "topic_key to\n", { 'message' => 'b', 'to' => 'no-such-topic' }, /create the topic/],
    'no such partition' => [{}, "partition_key to\n", { 'message' => 'b', 'to' => 99 }, /has no partition 99/],
    'no partition at all' => [{}, "partition_key to\n", { 'message' => 'b', 'to' => 'x' }, /invalid value for Integer/]
  }
  buffers = { '' => '', 'buffered, ' => "<buffer tag>\nflush_mode immediate\n</buffer>" }
  data(buffers.flat_map { |name, buffer| refused.map { |what, row| [name + what, [*row, buffer]] } }.to_h)
  test 'a record that Kafka refuses goes to the error stream with the reason, the rest goes on' do |(config, conf, record, reason, buffer)|
    topic = Kafka.topic(**config)
    records = [{ 'message' => 'a', 'key' => 'k' }, record, { 'message' => 'c', 'key' => 'k' }]
    driver = deliver("topic #{topic}\n#{conf}#{SINGLE}\n#{buffer}", records)
    assert_equal([['ad.click', record]], driver.error_events.map { |tag, _, event| [tag, event] })
    assert_match reason, driver.error_events.first[3].message
    assert_equal %w[a c], Kafka.read(topic).map(&:payload)
  end

  test 'a record without a topic goes to the error stream' do
    topic = Kafka.topic
    driver = deliver('topic_key to', [{ 'to' => topic }, { 'a' => 1 }])
    assert_equal [['ad.click', { 'a' => 1 }, 'no topic: the record has no field to, and topic is not set']], errors(driver)
    assert_equal 1, Kafka.read(topic).size
  end

  test 'a topic that the configuration names and that does not exist fails everything' do
    error = assert_raise(Bridge::KafkaError) { deliver('topic no-such-topic', [{ 'a' => 1 }]) }
    assert_match(/no-such-topic.*create the topic/, error.message)
  end

  test 'brokers that are not there fail everything within the time given' do
    driver = driver('topic t', brokers: '127.0.0.1:1')
    driver.run do
      driver.instance.shutdown # which leaves ten seconds
      assert_match(/check `brokers`/, assert_raise(Bridge::KafkaError) { driver.feed('t', TIME, { 'a' => 1 }) }.message)
    end
  end

  test 'a chunk that was not delivered is tried again, and then delivered' do
    topic = "late#{SecureRandom.hex(6)}"
    driver = driver("topic #{topic}\n<buffer tag>\nflush_mode immediate\nretry_wait 0.1\nretry_max_interval 1\n</buffer>")
    driver.run(default_tag: 't', shutdown: true) do
      driver.instance.retry_for_error_chunk = true
      driver.feed('t', TIME, { 'a' => 1 })
      sleep 0.1 until driver.instance.retry
      admin = Rdkafka::Config.new('bootstrap.servers': Kafka.brokers).admin
      admin.create_topic(topic, 1, 1).wait
      admin.close
      sleep 0.1 while driver.instance.retry
    end
    assert_equal ['{"a":1}'], Kafka.read(topic).map(&:payload).uniq
  end

  test 'in a unit of work records are in its transaction' do
    topic = Kafka.topic
    driver = driver("topic #{topic}\n#{SINGLE}")
    producer = transactional
    driver.run do
      Bridge::UnitOfWork.run(producer) { driver.feed('t', TIME, { 'message' => 'a' }) }
      producer.commit_transaction
      producer.begin_transaction
      Bridge::UnitOfWork.run(producer) { driver.feed('t', TIME, { 'message' => 'b' }) }
      producer.abort_transaction
    end
    assert_equal ['a'], Kafka.read(topic).map(&:payload)
  end

  test 'in a unit of work a refused record goes to the error stream' do
    with_error_label
    topic = Kafka.topic
    driver = driver("topic #{topic}\n#{SINGLE}")
    producer = transactional
    driver.run do
      Bridge::UnitOfWork.run(producer) do
        driver.feed('t', TIME, large)
        driver.feed('t', TIME, { 'message' => 'a' })
      end
      producer.commit_transaction
    end
    assert_equal([large], driver.error_events.map { |event| event[2] })
    assert_equal ['a'], Kafka.read(topic).map(&:payload)
  end

  units = { 'a refused record, and no error stream to keep it' => ['', large, /too large/],
            'a topic that does not exist' => ['topic no-such-topic', { 'message' => 'a' }, /create the topic/],
            'another cluster' => ['', { 'message' => 'a' }, /elsewhere:9092.*give this output a <buffer>/, 'elsewhere:9092'] }
  data(units)
  test 'a unit of work fails for' do |(conf, record, message, brokers)|
    topic = Kafka.topic
    driver = driver("#{conf.empty? ? "topic #{topic}" : conf}\n#{SINGLE}", brokers: brokers || Kafka.brokers)
    driver.run do
      error = assert_raise(Bridge::KafkaError, Fluent::ConfigError) do
        Bridge::UnitOfWork.run(transactional) { driver.feed('t', TIME, record) }
      end
      assert_match message, error.message
    end
    assert_equal [], Kafka.read(topic)
  end
end
