# frozen_string_literal: true

require 'test-unit'
require 'fluent/test'
require 'fluent/plugin/bridge/producer'
require_relative '../kafka'

class ProducerTest < Test::Unit::TestCase
  KafkaError = Fluent::Plugin::Bridge::KafkaError
  DeliveryFailed = Fluent::Plugin::Bridge::DeliveryFailed

  setup do
    Fluent::Test.setup
    @log = Fluent::Test::TestLogger.new
    @producers = []
  end

  teardown { @producers.each(&:close) }

  def producer(**options)
    options = { 'bootstrap.servers' => Kafka.brokers }.merge(options.transform_keys { |key| key.to_s.tr('_', '.') })
    Fluent::Plugin::Bridge::Producer.new(options, log: @log).tap { |producer| @producers << producer }
  end

  def transactional(id = SecureRandom.hex, **)
    producer(transactional_id: id, **).tap(&:init_transactions)
  end

  def messages(*payloads, keys: [])
    payloads.each_with_index.with_object(Fluent::Plugin::Bridge::Messages.new) do |(payload, index), list|
      list.add(payload, keys[index], index)
    end
  end

  def payloads(topic)
    Kafka.read(topic).map(&:payload).sort_by(&:to_s)
  end

  test 'what flush returned for has been delivered, in order, tombstones and empty texts too' do
    topic = Kafka.topic
    out = producer
    assert_equal [], out.produce(topic, messages('a', '', nil, "\xff\x00", keys: [nil, 'k', 'k', '']))
    out.flush
    assert_equal([['a', nil], ['', 'k'], [nil, 'k'], ["\xff\x00".b, '']],
                 Kafka.read(topic).map { |record| [record.payload&.b, record.key] }.map { |payload, key| [payload, key] })
  end

  test 'headers and time go with a message' do
    topic = Kafka.topic
    list = Fluent::Plugin::Bridge::Messages.new
    list.add('v', 'k', 0, headers: { 'site' => 'x', 'empty' => '' }, timestamp: 1_700_000_000_123)
    list.add('w', nil, 1)
    out = producer
    out.produce(topic, list)
    out.flush
    first, second = Kafka.read(topic)
    assert_equal({ 'site' => 'x', 'empty' => '' }, first.headers)
    assert_equal 1_700_000_000_123, (first.timestamp.to_f * 1000).round
    assert_equal ['w', {}], [second.payload, second.headers]
  end

  test 'more than the queue holds waits for room' do
    topic = Kafka.topic(partitions: 2)
    out = producer(queue_buffering_max_messages: 100)
    assert_equal [], out.produce(topic, messages(*Array.new(1000, &:to_s)))
    out.flush
    assert_equal 1000, Kafka.read(topic).size
  end

  test 'a message that is too large for the client is named, the others are delivered' do
    topic = Kafka.topic
    out = producer
    assert_equal [[1, 10]], out.produce(topic, messages('a', 'x' * 1_500_000, 'b'))
    out.flush
    assert_equal %w[a b], payloads(topic)
  end

  data('too large for the topic' => [{ max_message_bytes: 3000 }, 'x' * 5000, 10],
       'without a key in a compacted topic' => [{ cleanup_policy: 'compact' }, 'no key', 87])
  test 'the message that a broker refuses a batch for is found, the others are delivered once' do |(config, refused, code)|
    topic = Kafka.topic(partitions: 2, **config)
    out = producer
    list = messages(*Array.new(300, &:to_s), refused, *Array.new(300, &:to_s), keys: Array.new(300, 'k') + [nil] + Array.new(300, 'k'))
    out.produce(topic, list)
    error = assert_raise(DeliveryFailed) { out.flush }
    assert_equal [[topic, 300, code]], error.refused.map(&:to_a)
    assert error.refused_only?
    assert_false out.failed?
    assert_equal (Array.new(300, &:to_s) * 2).sort, payloads(topic)

    # It is known when it comes again.
    assert_equal [[0, code]], out.produce(topic, messages(refused))
    out.flush
  end

  test 'an unknown topic is an error that tells what to do' do
    out = producer
    error = assert_raise(KafkaError) { out.produce('no-such-topic', messages('a')) }
    assert error.topic?
    assert_equal 'UNKNOWN_TOPIC_OR_PART', error.name
    assert_match(/no-such-topic.*create the topic/, error.message)
    assert_equal 'TOPIC_EXCEPTION', assert_raise(KafkaError) { out.produce('no topic', messages('a')) }.name
  end

  test 'brokers that are not there are an error that names them, in one line of the log' do
    out = producer(bootstrap_servers: '127.0.0.1:1')
    out.give_up_in(1)
    error = assert_raise(KafkaError) { out.produce('t', messages('a')) }
    assert_match(/127\.0\.0\.1:1.*check `brokers`/, error.message)
    assert_equal 1, @log.out.logs.grep(/\[warn\]|\[error\]/).size, @log.out.logs.join
  end

  data('unknown' => [{ no_such_option: 1 }, /no\.such\.option/], 'contradictory' => [{ acks: 1 }, /acks/])
  test 'wrong settings are an error of the configuration' do |(options, message)|
    assert_match message, assert_raise(Fluent::ConfigError) { producer(**options) }.message
  end

  test 'a transaction that was committed is seen, one that was aborted is not' do
    topic = Kafka.topic(partitions: 2)
    out = transactional
    [%w[a b], %w[c d], %w[e f]].each_with_index do |batch, index|
      out.begin_transaction
      out.produce(topic, messages(*batch))
      index == 1 ? out.abort_transaction : out.commit_transaction
    end
    assert_equal %w[a b e f], payloads(topic)
  end

  test 'an abort takes back what waits in the queue and what was delivered' do
    topic = Kafka.topic
    out = transactional
    out.begin_transaction
    out.produce(topic, messages(*Array.new(20_000, 'x' * 100)))
    out.abort_transaction
    out.begin_transaction
    out.produce(topic, messages('a'))
    out.flush
    out.produce(topic, messages('b'))
    out.abort_transaction
    out.begin_transaction
    out.produce(topic, messages('c'))
    out.commit_transaction
    assert_equal ['c'], payloads(topic)
  end

  data('too large for the topic' => [{ max_message_bytes: 3000 }, 'x' * 5000, 10],
       'without a key in a compacted topic' => [{ cleanup_policy: 'compact' }, 'no key', 87])
  test 'a message that a broker refuses ends its transaction until it is found, and then no more' do |(config, refused, code)|
    topic = Kafka.topic(**config)
    out = transactional
    found = nil
    40.times do
      out.begin_transaction
      found = out.produce(topic, messages(*Array.new(50, &:to_s), refused, keys: Array.new(50, 'k') + [nil]))
      out.commit_transaction
      break
    rescue KafkaError => e
      assert e.requires_abort?, e.message
      out.abort_transaction
    end
    assert_equal [[50, code]], found
    assert_equal Array.new(50, &:to_s).sort, payloads(topic)
  end

  test 'a producer that another one has taken the place of can do nothing any more, and says what to do' do
    topic = Kafka.topic
    old = transactional('taken-over')
    transactional('taken-over')
    old.begin_transaction
    error = assert_raise(KafkaError) do
      old.produce(topic, messages('zombie'))
      old.commit_transaction
    end
    assert error.fatal?
    assert_equal '_FENCED', error.name
    assert_match(/give each replica its own `transactional_id`/, error.message)
    assert old.failed?
    assert_equal [], payloads(topic)
  end
end
