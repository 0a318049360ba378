# frozen_string_literal: true

require_relative '../helper'
require_relative '../kafka_groups'
require 'fluent/test/driver/input'
require 'fluent/plugin/in_bridge_kafka'

class BridgeKafkaInputTest < Test::Unit::TestCase
  Bridge = Fluent::Plugin::Bridge
  SECONDS = 90 # for the machine at its slowest; what ends earlier does not wait
  SESSION = 6 # the least that a broker allows: whatever it waits for a member for, it does not wait long

  setup { Fluent::Test.setup }

  # What the driver's router takes has been delivered.
  def read(topic, conf = '', events: 1, group: SecureRandom.hex)
    driver = Fluent::Test::Driver::Input.new(Fluent::Plugin::BridgeKafkaInput).configure(<<~CONF)
      brokers #{Kafka.brokers}
      topics #{topic}
      consumer_group #{group}
      session_timeout #{SESSION}
      #{conf}
    CONF
    driver.run(timeout: SECONDS) { sleep 0.05 until enough?(driver, events) }
    driver
  rescue Fluent::Test::Driver::TestTimedOut
    flunk "#{driver.events.size} of #{events} events in #{SECONDS} s\n#{driver.logs.join}"
  end

  def enough?(driver, events)
    driver.events.size + driver.error_events.size >= events
  end

  def messages(driver)
    driver.events.map { |_, _, record| record['message'] }
  end

  sub_test_case 'events' do
    fields = "key_field k\nheaders_field h\ntopic_field t\npartition_field p\noffset_field o\ntimestamp_field ts"
    message = { key: 'anne', headers: { 'a' => 'b', 'c' => 'ü' }, timestamp: 1_700_000_000_123 }
    cases = {
      'payload alone' => ['', message, {}],
      'under another name' => ['payload_key body', message, nil],
      'key' => ['key_field k', message, { 'k' => 'anne' }],
      'no key' => ['key_field k', {}, { 'k' => nil }],
      'empty key' => ['key_field k', { key: '' }, { 'k' => '' }],
      'headers' => ['headers_field h', message, { 'h' => { 'a' => 'b', 'c' => 'ü' } }],
      'no headers' => ['headers_field h', {}, { 'h' => {} }],
      'topic' => ['topic_field t', message, { 't' => :topic }],
      'partition and offset' => ["partition_field p\noffset_field o", message, { 'p' => 0, 'o' => 0 }],
      'timestamp' => ['timestamp_field ts', message, { 'ts' => 1_700_000_000_123 }],
      'all' => [fields, message, { 'k' => 'anne', 'h' => { 'a' => 'b', 'c' => 'ü' }, 't' => :topic, 'p' => 0, 'o' => 0,
                                   'ts' => 1_700_000_000_123 }]
    }
    data(cases.flat_map { |name, one| [["#{name}, raw", [*one, '']], ["#{name}, parsed", [*one, "<parse>\n@type none\n</parse>"]]] }.to_h)
    test 'have the fields that were asked for' do |(conf, message, expected, parse)|
      topic = Kafka.topic
      Kafka.write(topic, [{ payload: 'x', **message }])
      driver = read(topic, "#{conf}\n#{parse}")
      expected = if expected.nil?
                   {}
                 else
                   expected.transform_values { |value| value == :topic ? topic : value }
                 end
      body = conf.start_with?('payload_key') && parse.empty? ? 'body' : 'message'
      assert_equal([[topic, { body => 'x' }.merge(expected)]], driver.events.map { |tag, _, record| [tag, record] })
    end

    data('raw' => '', 'raw, with a field' => 'offset_field o', 'parsed' => "<parse>\n@type none\n</parse>")
    test 'have the time of the message if they should' do |conf|
      topic = Kafka.topic
      Kafka.write(topic, [{ payload: 'x', timestamp: 1_700_000_000_123 }])
      before = Fluent::EventTime.now
      assert_equal([Fluent::EventTime.new(1_700_000_000, 123_000_000)], read(topic, "#{conf}\ntime_source kafka").events.map do |event|
        event[1]
      end)
      assert_operator read(topic, conf).events.first[1], :>=, before
    end

    data('raw' => '', 'raw, with a field' => 'partition_field p', 'parsed' => "<parse>\n@type none\n</parse>")
    test 'hold payloads of any size and of any bytes' do |conf|
      payloads = [0, 1, 31, 32, 255, 256, 65_535, 65_536, 900_000].map { |size| 'x' * size } + ["\xff\x00\xc1".b, 'ü']
      topic = Kafka.topic
      Kafka.write(topic, payloads.map { |payload| { payload: payload } })
      assert_equal payloads.map(&:b), messages(read(topic, conf, events: payloads.size)).map(&:b)
    end

    data('raw' => '', 'raw, with a field' => 'partition_field p')
    test 'hold nil for a tombstone' do |conf|
      topic = Kafka.topic
      Kafka.write(topic, [{ payload: nil, key: 'k' }, { payload: '', key: 'k' }])
      assert_equal [nil, ''], messages(read(topic, conf, events: 2))
    end

    data('of the topic' => ['${topic}', '%s'], 'fixed' => ['ad.click', 'ad.click'], 'both' => ['kafka.${topic}.raw', 'kafka.%s.raw'])
    test 'have the tag' do |(tag, expected)|
      topics = Array.new(2) { Kafka.topic }
      topics.each { |topic| Kafka.write(topic, [{ payload: topic }]) }
      events = read(topics.join(','), "tag #{tag}", events: 2).events
      assert_equal(topics.sort.map { |topic| [format(expected, topic), topic] }, events.map do |name, _, record|
        [name, record['message']]
      end.sort)
    end

    test 'come from the topics that a regular expression matches' do
      prefix = "r#{SecureRandom.hex(4)}"
      topics = %w[a b].map { |name| Kafka.create("#{prefix}.#{name}") }
      (topics + [Kafka.create("other.#{prefix}")]).each { |topic| Kafka.write(topic, [{ payload: topic }]) }
      assert_equal topics, messages(read("^#{prefix}\\..*", events: 2)).sort
    end

    data(%w[none gzip snappy lz4 zstd].to_h { |codec| [codec, codec] })
    test 'were compressed by' do |codec|
      topic = Kafka.topic
      Kafka.write(topic, Array.new(100) { |number| { payload: "#{number} #{'x' * 100}" } }, 'compression.codec': codec)
      assert_equal(Array.new(100) { |number| "#{number} #{'x' * 100}" }, messages(read(topic, events: 100)))
    end
  end

  sub_test_case 'parsing' do
    cases = {
      'json' => ["@type json\ntime_key nope", '{"a":1}', { 'a' => 1 }, '{"a":'],
      'regexp' => ['@type regexp
expression /^(?<a>\d+)$/', '12', { 'a' => '12' }, 'twelve'],
      'a JSON text that is no object' => ['@type json', '{"a":1}', { 'a' => 1 }, '7'],
      'not UTF-8' => ['@type json', '{"a":1}', { 'a' => 1 }, "{\"a\":\"\xff".b],
      'a tombstone' => ['@type json', '{"a":1}', { 'a' => 1 }, nil]
    }
    data(cases)
    test 'hands what cannot be parsed to the error stream, and the rest goes on' do |(parse, good, record, bad)|
      topic = Kafka.topic
      Kafka.write(topic, [{ payload: good }, { payload: bad }, { payload: good }])
      driver = read(topic, "offset_field o\n<parse>\n#{parse}\n</parse>", events: 3)
      assert_equal([0, 2].map { |offset| record.merge('o' => offset) }, driver.events.map(&:last))
      tag, _, original, error = driver.error_events.first
      assert_equal [topic, { 'message' => bad, 'o' => 1 }], [tag, original.transform_values do |value|
        value.is_a?(String) ? value.b : value
      end]
      assert_match(/payload cannot be parsed/, error.message)
    end

    test "takes the parser's time" do
      topic = Kafka.topic
      Kafka.write(topic, [{ payload: '{"a":1,"time":1700000000}' }])
      assert_equal 1_700_000_000, read(topic, "<parse>\n@type json\n</parse>").events.first[1].to_i
    end
  end

  sub_test_case 'batches' do
    test 'have as many events as is allowed, and in order' do
      topic = Kafka.topic
      Kafka.write(topic, Array.new(25) { |number| { payload: number.to_s } })
      driver = read(topic, 'batch_events 10', events: 25)
      assert_equal (0..24).map(&:to_s), messages(driver)
      assert_operator driver.event_streams.map { |_, stream| stream.size }.max, :<=, 10
    end

    test 'have about as many bytes as is allowed' do
      topic = Kafka.topic
      Kafka.write(topic, Array.new(1500) { { payload: 'x' * 10_000 } })
      driver = read(topic, 'batch_bytes 100k', events: 1500)
      # The first one does not know how large messages are.
      assert_operator driver.event_streams.drop(1).map { |_, stream| stream.size }.max, :<=, 11
    end
  end

  sub_test_case 'delivery' do
    cases = %w[exactly_once at_least_once].product(
      ['', 'threads 2', 'consumer_options {"partition.assignment.strategy":"range"}', 'consumer_options {"group.protocol":"consumer"}',
       'group_instance_id fixed', 'rdkafka_options {"fetch.wait.max.ms":"10"}']
    )
    data(cases.to_h { |delivery, conf| ["#{delivery} #{conf}", [delivery, conf]] })
    test 'is committed' do |(delivery, conf)|
      topic = Kafka.topic(partitions: 4)
      group = SecureRandom.hex
      Kafka.write(topic, Array.new(200) { |number| { payload: number.to_s, partition: number % 4 } })
      driver = read(topic, "delivery #{delivery}\n#{conf}", events: 200, group: group)
      assert_equal (0..199).map(&:to_s).sort, messages(driver).sort
      assert_equal({ 0 => 50, 1 => 50, 2 => 50, 3 => 50 }, Kafka.committed(group, topic))
      assert_empty(driver.logs.grep(/\[(warn|error)\]/))
      Kafka.write(topic, [{ payload: 'more', partition: 3 }])
      assert_equal ['more'], messages(read(topic, "delivery #{delivery}\n#{conf}", group: group))
    end

    data('earliest' => ['earliest', 5], 'latest' => ['latest', 0])
    test 'begins where the group has no offset' do |(reset, expected)|
      topic = Kafka.topic
      Kafka.write(topic, Array.new(5) { { payload: 'old' } })
      conf = "consumer_options {\"auto.offset.reset\":\"#{reset}\"}"
      driver = Fluent::Test::Driver::Input.new(Fluent::Plugin::BridgeKafkaInput)
                                          .configure("brokers #{Kafka.brokers}\ntopics #{topic}\nconsumer_group #{topic}\n#{conf}")
      driver.run(timeout: SECONDS) do
        until messages(driver).include?('new') # when it begins to read is not to be seen from here
          Kafka.write(topic, [{ payload: 'new' }])
          sleep 0.5
        end
      end
      assert_equal expected, messages(driver).count('old')
    end

    # As a process does that is killed before its commit.
    def leave_open(transactional_id, topic)
      common = { 'bootstrap.servers' => Kafka.brokers }
      log = Fluent::Test::TestLogger.new
      reader = Bridge::Consumer.new({ **common, 'group.id' => topic, 'enable.auto.commit' => 'false' }, [topic], log: log)
      batch = reader.read(max_events: 1, max_bytes: 1, timeout: 1, wait: 0) until batch
      producer = Bridge::Producer.new({ **common, 'transactional.id' => transactional_id, 'transaction.timeout.ms' => 300_000 }, log: log)
      producer.init_transactions
      producer.begin_transaction
      metadata = reader.group_metadata
      Bridge::Partitions.list([topic, 0] => 1) { |list| producer.send_offsets(list, metadata.pointer) }
    ensure
      [metadata, batch].compact.each(&:free)
      [reader, producer].compact.each(&:close)
    end

    test 'ends the transaction that a predecessor left open with offsets in it' do
      topic = Kafka.topic
      Kafka.write(topic, [{ payload: 'x' }])
      leave_open("#{topic}-0-0", topic)
      assert_equal ['x'], messages(read(topic, "transactional_id #{topic}", group: topic))
    end

    test 'goes on at the first message if the committed one was deleted, and says how many nobody read' do
      topic = Kafka.topic
      Kafka.write(topic, Array.new(10) { |number| { payload: number.to_s } })
      group = SecureRandom.hex
      Kafka.commit(group, topic, 0 => 2)
      Kafka.delete(topic, 0 => 6)
      driver = read(topic, events: 4, group: group)
      assert_equal %w[6 7 8 9], messages(driver)
      assert_equal 1, driver.logs.grep(/offset 2 is not there any more, only 6 to 10: 4 messages were deleted unread/).size
    end

    test 'waits for topics that do not exist, says so once for each, and takes one up when it is there' do
      topic, never = Array.new(2) { "late#{SecureRandom.hex(4)}" }
      driver = Fluent::Test::Driver::Input.new(Fluent::Plugin::BridgeKafkaInput)
                                          .configure("brokers #{Kafka.brokers}\ntopics #{topic},#{never}\nconsumer_group #{topic}")
      driver.run(timeout: SECONDS) do
        [topic, never].each { |name| sleep 0.1 until driver.logs.any?(/#{name}.*Unknown topic.*create the topic/) }
        Kafka.create(topic)
        Kafka.write(topic, [{ payload: 'x' }])
        sleep 0.1 while driver.events.empty?
      end
      assert_equal 2, driver.logs.grep(/\[(warn|error)\]/).size, driver.logs.join
    end
  end
end
